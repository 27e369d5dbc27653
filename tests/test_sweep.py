"""A grid of runs, from wherever it was left."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
import yaml

from snn_sparsity.commands.main import main
from snn_sparsity.configs import shipped
from snn_sparsity.runs.files import hold
from snn_sparsity.runs.metrics import epochs_logged, forget_from
from snn_sparsity.sweep.grid import chosen, epochs_asked, grid_names, part, read_grid
from snn_sparsity.sweep.progress import GridProgress, time_left
from snn_sparsity.sweep.state import Place, clear, next_command, runs_of
from snn_sparsity.sweep.workers import LOCK
from snn_sparsity.validation import InputError

ROOT = Path(__file__).parents[1]
TINY = Path(__file__).parent / "tiny.yaml"


pytestmark = pytest.mark.usefixtures("elsewhere")


# The grid ------------------------------------------------------------------------------------------------------------------


def test_the_paper_s_grid_is_its_fifteen_rows():
    rows = read_grid("paper", [3407])
    sew = [f"sew{depth}_{pool}pool" for pool in ("max", "avg") for depth in (18, 34, 50)]
    assert [row.config for row in rows if row.group == "cifar10"] == sew
    assert [row.config for row in rows if row.group == "cifar100"] == [*sew, *(f"spiking{depth}_maxpool" for depth in (18, 34, 50))]
    assert all(row.settings[-4:] == ("--data.name", row.group, "--seed_everything", "3407") for row in rows)


def test_the_digits_are_all_nine_networks():
    networks = {path.removesuffix(".yaml") for path in shipped.names()}
    assert {f"demo+{name}" for name in networks if re.fullmatch(r"(sew|spiking)\d+_(max|avg)pool", name)} == {
        row.config for row in read_grid("digits", [1])
    }


@pytest.mark.parametrize(
    "row", [*read_grid("digits", [5])[::4], read_grid("cpu", [5])[1], read_grid("paper", [5])[8]], ids=lambda row: row.name
)
def test_rows_are_settings_that_fit_accepts(row, capsys):
    for split in ("train", "test"):
        (Path("images") / split / "a").mkdir(parents=True)
    images = ["--data.root", "images"] if row.grid == "cpu" else []
    with pytest.raises(SystemExit) as stop:
        main([*row.settings, *images, "--print_config"])
    assert stop.value.code == 0
    config = yaml.safe_load(capsys.readouterr().out)
    network = config["model"]["network"]
    family, depth, pool = re.fullmatch(r"(sew|spiking)(\d+)_(max|avg)pool", row.configs[-1]).groups()
    assert network["class_path"].rsplit(".", 1)[1].lower() == f"{family}resnet"
    assert (network["init_args"]["depth"], network["init_args"]["pool"]) == (int(depth), pool)
    assert config["seed_everything"] == 5
    assert config["trainer"]["max_epochs"] == epochs_asked(row)


@pytest.mark.parametrize("row", [*read_grid("defences", [5])[::5], *read_grid("defences_cpu", [5])[1::2]], ids=lambda row: row.name)
def test_rows_of_defences_are_settings_that_fit_accepts(row, capsys):
    archive = ["--data", "ArrayDataModule", "--data.path", "cifar10.npz"] if row.grid == "defences_cpu" else []
    with pytest.raises(SystemExit) as stop:
        main([*row.settings, *archive, "--print_config"])
    assert stop.value.code == 0
    config = yaml.safe_load(capsys.readouterr().out)
    epochs = config["trainer"]["max_epochs"]
    assert epochs == epochs_asked(row)
    schedule = (config["lr_scheduler"] or {}).get("init_args", {})
    assert schedule.get("T_max", epochs) == epochs, "the learning rate ends with the run"
    data = config["data"]["init_args"]
    if not row.config.startswith("sew"):
        assert data["crop"] == 4, "another dataset keeps what the configuration says of the code and the crops"
        assert data["encoder"]["class_path"].endswith("DirectEncoder" if "poisson" not in row.config else "QuantisedEncoder")


def test_seeds_come_one_after_the_other():
    assert [row.seed for row in read_grid("cpu", [2, 1])] == [2, 2, 1, 1]


@pytest.mark.parametrize("count", [1, 4, 15, 40])
def test_parts_are_the_whole_grid_and_share_nothing(count):
    rows = read_grid("paper", [1, 2])
    shared = Counter(row for index in range(count) for row in part(rows, f"{index}/{count}"))
    assert shared == Counter(rows)


def test_a_grid_of_ones_own_composes_configurations_with_arguments():
    Path("mine.yaml").write_text("a: {configs: [demo+sew18_avgpool], arguments: --model.lr 0.1}\n")
    (row,) = read_grid("mine.yaml", [7], ["--model.lr", "0.2"])
    assert (row.grid, row.name) == ("mine", "a/demo+sew18_avgpool")
    words = "fit --config demo --config sew18_avgpool --model.lr 0.1 --model.lr 0.2 --seed_everything 7"
    assert row.settings == tuple(words.split())
    assert epochs_asked(row) == 4


def test_patterns_match_configurations_and_groups():
    rows = read_grid("paper", [1])
    assert {row.name for row in chosen(rows, "sew18*")} == {f"cifar{n}/sew18_{pool}pool" for n in (10, 100) for pool in ("max", "avg")}
    assert len(chosen(rows, "cifar10/*")) == 6


# What is on disk -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def row():
    Path("grid.yaml").write_text(f"tiny: {{configs: ['{TINY}']}}\n")
    return read_grid("grid.yaml", [3407], ["--trainer.max_epochs", "3"])[0]


def leave(row, number, status="running", arguments=None, earlier=()):
    """What a run leaves on disk."""
    run = Place().folder(row) / str(number)
    run.mkdir(parents=True)
    record = {"status": status, "arguments": list(arguments or Place().fit(row)), "earlier": list(earlier)}
    (run / "run.json").write_text(json.dumps(record))
    return run


def leave_finished(run):
    (run / "run.json").write_text((run / "run.json").read_text().replace("running", "finished"))


def test_a_row_that_was_never_begun_is_begun(row):
    command = next_command(row, Place())
    assert command[: len(row.settings)] == list(row.settings)
    assert " ".join(command[len(row.settings) :]).startswith("--trainer.default_root_dir runs/grid/tiny --trainer.enable")


@pytest.mark.parametrize("status", ["running", "failed", "interrupted"])
def test_a_broken_run_is_resumed(row, status):
    leave(row, 0, status)
    assert next_command(row, Place()) == [*Place().fit(row), "--resume"]
    assert clear(row, Place()) == []


def test_a_finished_run_is_left_alone(row):
    leave(row, 0, "finished")
    leave(row, 1)
    assert next_command(row, Place()) is None


def test_runs_with_other_settings_are_left_alone(row):
    leave(row, 0, "finished", [*row.settings[:-2], "--trainer.max_epochs", "9", "--trainer.default_root_dir", "runs"])
    leave(row, 1, arguments=["fit"])
    assert runs_of(row, Place()) == []
    assert next_command(row, Place()) == Place().fit(row)


def test_a_run_that_went_on_is_known_by_how_it_began(row):
    run = leave(row, 0, "finished", ["fit", "--config", "x", "--ckpt_path", "y"], [{"arguments": Place().fit(row)}])
    assert runs_of(row, Place()) == [run]
    assert next_command(row, Place()) is None


def test_where_and_on_what_it_runs_does_not_make_another_run(row):
    leave(row, 0, "finished")
    assert next_command(row, Place(device=("--trainer.accelerator", "cpu"), data_root="elsewhere")) is None


def test_a_row_may_begin_with_what_another_made():
    grid = {
        "ann": {"configs": ["demo"]},
        "snn": {"configs": ["demo"], "arguments": "--callbacks.path $runs/ann/demo/seed_$seed/0/best.ckpt $HOME"},
    }
    Path("mine.yaml").write_text(yaml.safe_dump(grid))
    ann, snn = read_grid("mine.yaml", [7])
    place = Place(root="elsewhere")
    command = place.fit(snn)
    assert command[4] == f"{place.folder(ann)}/0/best.ckpt" == "elsewhere/mine/ann/demo/seed_7/0/best.ckpt"
    assert command[5] == "$HOME", "nothing else is replaced"
    run = place.folder(snn) / "0"
    run.mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"status": "finished", "arguments": command}))
    assert runs_of(snn, place) == [run]
    assert next_command(snn, place) is None


def test_testing_comes_after_the_fit(row):
    place = Place(test=True)
    run = leave(row, 0, "finished")
    assert next_command(row, place) == ["test", "--config", f"{run}/config.yaml", "--ckpt_path", f"{run}/best.ckpt"]
    (run / "test").mkdir()
    (run / "test/run.json").write_text('{"status": "running"}')
    assert clear(row, place) == [run / "test"]
    (run / "test").mkdir()
    (run / "test/run.json").write_text('{"status": "finished"}')
    assert next_command(row, place) is None


def test_epochs_are_read_from_the_end_of_the_metrics(tmp_path):
    assert epochs_logged(tmp_path) == 0
    lines = ["epoch,step,name,value", *(f"0,{step},train/loss_step,1.0" for step in range(999))]
    for more, epochs in (([], 0), (["0,999,train/loss_epoch,1.0"], 1), (["3,4000,val/accuracy,0.5"], 3), (["4,5000,val/ac"], 3)):
        lines += more
        (tmp_path / "metrics.csv").write_text("\n".join(lines) + ("" if lines[-1].endswith("val/ac") else "\n"))
        assert epochs_logged(tmp_path) == epochs


# Progress ------------------------------------------------------------------------------------------------------------------


def test_progress_counts_the_whole_grid_and_what_was_there_before(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    progress = GridProgress({"a": 10, "b": 10}, {"a": 10, "b": 4})
    assert progress.line() == "grid: 14 of 20 epochs (70 %), time left not known yet"
    clock[0] += 120
    assert progress.update("b", 6)
    assert progress.line() == "grid: 16 of 20 epochs (80 %), about 4 min 0 s left"
    assert not progress.update("b", 6)


def test_a_grid_of_no_epochs_has_nothing_left():
    progress = GridProgress({"a": 0}, {"a": 0})
    assert progress.line() == "grid: 0 of 0 epochs, nothing left"
    assert not progress.update("a", 0, finished=True)


def test_a_run_that_ends_early_was_asked_for_no_more():
    progress = GridProgress({"a": 10, "b": 10}, {"a": 0, "b": 0})
    assert progress.update("a", 4, finished=True)
    assert progress.line().startswith("grid: 4 of 14 epochs (29 %)")
    assert not progress.update("a", 4, finished=True)


def test_a_run_beyond_what_was_counted_for_it_is_told_once():
    progress = GridProgress({"a": 10}, {"a": 9})
    assert progress.update("a", 11)
    assert progress.line().startswith("grid: 10 of 10 epochs (100 %)")
    assert not progress.update("a", 11)


def test_the_pace_is_that_of_this_sweep():
    assert time_left(5, 10, 20) == "about 10 s left"


# Going on ------------------------------------------------------------------------------------------------------------------


def metrics(run):
    with open(Path(run) / "metrics.csv", newline="") as file:
        return [row for row in csv.reader(file) if not row[2].startswith("time/")]


def test_forgetting_keeps_what_was_logged_before_the_checkpoint(tmp_path):
    file = tmp_path / "metrics.csv"
    forget_from(file, 3)
    assert not file.exists()
    file.write_text("epoch,step,name,value\n0,2,a,1.0\n,,b,1.0\n1,3,a,1.0\n1,2,c,1")
    forget_from(file, 3)
    assert file.read_text() == "epoch,step,name,value\n0,2,a,1.0\n,,b,1.0\n"
    assert [path.name for path in tmp_path.glob("metrics*")] == ["metrics.csv"]
    forget_from(file, 0)
    assert file.read_text() == "epoch,step,name,value\n"


@pytest.mark.parametrize("cut", ["", "epoch,st"])
def test_a_first_line_that_was_cut_short_is_mended(cut, tmp_path):
    file = tmp_path / "metrics.csv"
    file.write_text(cut)
    forget_from(file, 0)
    assert file.read_text() == "epoch,step,name,value\n"


# The command ---------------------------------------------------------------------------------------------------------------


def test_print_shows_what_is_left_and_runs_nothing(row, capsys):
    command = ["sweep", "--grid", "grid.yaml", "--max_epochs", "3", "--test", "--print"]
    assert main(command) == 0
    fit, test = capsys.readouterr().out.splitlines()
    assert fit.startswith(f"snn-sparsity {' '.join(row.settings)} --trainer.default_root_dir runs/grid/tiny")
    assert test.startswith("snn-sparsity test --config runs/grid/tiny/tiny/seed_3407/0/config.yaml --ckpt_path runs/grid/tiny/tiny/")
    run = leave(row, 0)
    assert main(command) == 0
    fit, test = capsys.readouterr().out.splitlines()
    assert fit.endswith("--resume")
    assert test.endswith(f"--ckpt_path {run}/best.ckpt")
    assert [path.name for path in run.iterdir()] == ["run.json"]


@pytest.mark.parametrize(("more", "told"), [([], "nothing in this part\n"), (["--print"], "")], ids=["run", "print"])
def test_a_part_beyond_the_last_row_has_nothing_to_do(more, told, capsys):
    assert main(["sweep", "--grid", "paper", "--jobs", "1", "--part", "16/20", *more]) == 0
    assert capsys.readouterr().out == told
    assert not Path("runs").exists()


def test_options_become_arguments(capsys):
    options = "--only cifar10/sew18_avgpool --seeds 3,4 --samples 9 --data_root D --devices 0,1 --print -- --model.lr 0.1"
    assert main(["sweep", "--grid", "paper", *options.split()]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [word for line in lines for word in line.split() if word.isdigit()] == ["9", "9", "3", "1", "9", "9", "4", "1"]
    assert all("--data.train_samples 9 --data.test_samples 9 --model.lr 0.1 --seed_everything" in line for line in lines)
    assert all("--data.root D --trainer.enable_progress_bar false --trainer.devices 1" in line for line in lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--grid nope", f"--grid nope is no file and no grid: choose one of {', '.join(grid_names())}"),
        ("--grid list.yaml", "list.yaml is no mapping"),
        ("--grid odd.yaml", "the group 'a' must have a list of 'configs'"),
        ("--grid unknown.yaml", "vgg is no file and no shipped configuration"),
        ("--grid date.yaml", "date.yaml cannot be read: month must be in 1..12"),
        ("--grid number.yaml", "the group 1 must have a name that a folder can have"),
        ("--grid empty.yaml", "the group 'a' must have a list of 'configs'"),
        ("--grid numbers.yaml", "the group 'a' must have a list of 'configs'"),
        ("--grid list_of_words.yaml", "the group 'a' must have its 'arguments' in one text, such as '--data.name cifar10"),
        ("--grid zero_byte.yaml --print", "the group 'a' must have its 'arguments' in one text"),
        ("--grid unbalanced.yaml --print", "the group 'a' has 'arguments' that are no command line: no closing quotation"),
        ("--grid paper --only vgg*", "--only vgg* matches no row: the grid has cifar10/sew18_maxpool"),
        ("--grid paper --seeds 1,x", "--seeds 1,x is not allowed"),
        (f"--grid paper --seeds {'1' * 5000}", "is not allowed: give whole numbers with commas between"),
        ("--grid paper --max_epochs 0", "--max_epochs=0 is not allowed"),
        ("--grid paper --samples x", "invalid int value: 'x'"),
        ("--grid paper --jobs 0", "--jobs=0 is not allowed"),
        ("--grid paper --jobs 1 --devices 0", "not allowed with argument"),
        ("--grid paper --devices 0,,1", "--devices 0,,1 is not allowed: give GPUs with commas between, such as 0,1"),
        ("--grid paper --part 15/15", "--part 15/15 is not allowed"),
        (f"--grid paper --part 0/{'1' * 5000}", "is not allowed: give i/n with i from 0 to n-1"),
        ("", "the following arguments are required: --grid"),
    ],
)
def test_mistakes_get_one_line(arguments, message, capsys):
    Path("list.yaml").write_text("- a\n")
    Path("odd.yaml").write_text("a: {configs: demo}\n")
    Path("unknown.yaml").write_text("a: {configs: [vgg]}\n")
    Path("date.yaml").write_text("a: {configs: [demo], arguments: 2020-99-01}\n")
    Path("number.yaml").write_text("1: {configs: [demo]}\n")
    Path("empty.yaml").write_text("a: {configs: []}\n")
    Path("numbers.yaml").write_text("a: {configs: [demo, 1]}\n")
    Path("list_of_words.yaml").write_text("a: {configs: [demo], arguments: [--data.flip, 'false']}\n")
    Path("zero_byte.yaml").write_text('a: {configs: [demo], arguments: "--data.name a\\0b"}\n')
    Path("unbalanced.yaml").write_text("""a: {configs: [demo], arguments: "--x 'unbalanced"}\n""")
    assert main(["sweep", *arguments.split()]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not Path("runs").exists()


def test_a_grid_that_cannot_be_read():
    Path("broken.yaml").write_text("a: [")
    with pytest.raises(InputError, match=r"broken\.yaml cannot be read"):
        read_grid("broken.yaml", [1])
    assert grid_names() == ["causal", "causal_cpu", "cpu", "defences", "defences_cpu", "digits", "paper", "weight_decay"]


def test_a_lock_is_held_as_long_as_the_run_lives(tmp_path):
    file = tmp_path / "a.lock"
    lock = hold(file)
    assert hold(file) is None
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[lock])
    os.close(lock)
    assert hold(file) is None, "the process holds it after its parent has let go"
    process.communicate(b"\n")
    os.close(hold(file))


# Whole sweeps --------------------------------------------------------------------------------------------------------------


def sweep(*arguments):
    """Start a sweep in a process group of its own."""
    command = [sys.executable, "-m", "snn_sparsity", "sweep", "--grid", "grid.yaml", "--jobs", "1", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_epoch(run, epoch):
    deadline = time.monotonic() + 300
    while epochs_logged(run) < epoch:
        assert time.monotonic() < deadline, "the run logs nothing"
        time.sleep(0.01)


def test_a_sweep_killed_twice_ends_like_one_left_alone(row, capsys):
    Path("grid.yaml").write_text(f"tiny: {{configs: ['{TINY}'], arguments: --trainer.max_epochs 8 --trainer.log_every_n_steps 1}}\n")
    alone = sweep("--root", "alone")
    run = Path("killed/grid/tiny/tiny/seed_3407/0")
    for epoch in (1, 4):
        broken = sweep("--root", "killed")
        wait_for_epoch(run, epoch)
        os.killpg(broken.pid, signal.SIGKILL)
        broken.communicate()
        assert json.loads((run / "run.json").read_text())["status"] == "running"
    last = sweep("--root", "killed")
    printed = last.communicate(timeout=300)[0]
    alone.communicate(timeout=300)
    assert (last.returncode, alone.returncode) == (0, 0)
    assert "--resume" in printed
    assert "grid: 8 of 8 epochs (100 %), nothing left" in printed
    unbroken = Path("alone", *run.parts[1:])
    assert metrics(run) == metrics(unbroken)
    weights = [torch.load(each / "last.ckpt", weights_only=True)["state_dict"] for each in (run, unbroken)]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    record = json.loads((run / "run.json").read_text())
    assert (record["status"], record["epochs"], len(record["earlier"])) == ("finished", 8, 2)
    assert main(["sweep", "--grid", "grid.yaml", "--root", "killed"]) == 0
    assert "snn-sparsity fit" not in capsys.readouterr().out


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_sweep_stops_its_run(number, exit_code, row):
    running = sweep("--root", "stopped", "--max_epochs", "1000")
    run = Path("stopped/grid/tiny/tiny/seed_3407/0")
    wait_for_epoch(run, 1)
    running.send_signal(number)
    told = running.communicate(timeout=60)[1].splitlines()
    assert running.returncode == exit_code
    assert told[-1].endswith(": the same command goes on from here")
    assert json.loads((run / "run.json").read_text())["status"] == "interrupted"


def test_a_failing_run_is_told_and_does_not_stop_the_others(capsys, monkeypatch):
    Path("grid.yaml").write_text("a: {configs: [demo]}\nb: {configs: [demo]}\n")
    commands = {"a": [["configs", "vgg"]], "b": [["configs"], None]}
    monkeypatch.setattr("snn_sparsity.sweep.workers.next_command", lambda row, place: commands[row.group].pop(0))
    assert main(["sweep", "--grid", "grid.yaml", "--jobs", "2"]) == 1
    *_, told = capsys.readouterr().out.splitlines()
    assert "a/demo, seed 3407: FAILED: snn-sparsity: error: --config vgg is no file" in told
    assert "runs/grid/a/demo/seed_3407/sweep.log" in told
    assert commands == {"a": [], "b": []}


def test_a_run_that_ends_without_being_finished_is_not_tried_for_ever(monkeypatch):
    Path("grid.yaml").write_text("a: {configs: [demo]}\n")
    monkeypatch.setattr("snn_sparsity.sweep.workers.next_command", lambda row, place: ["configs"])
    assert main(["sweep", "--grid", "grid.yaml"]) == 1


def test_a_row_that_runs_elsewhere_is_waited_for(row, capsys):
    run = leave(row, 0)
    held = [hold(run.parent / LOCK)]

    def end(_):
        leave_finished(run)
        for descriptor in held:
            os.close(descriptor)
        held.clear()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("snn_sparsity.sweep.workers.time.sleep", end)
        assert main(["sweep", "--grid", "grid.yaml", "--max_epochs", "3"]) == 0
    printed = capsys.readouterr().out
    assert "runs elsewhere already; waiting for it" in printed
    assert "snn-sparsity fit" not in printed


@pytest.mark.parametrize(
    "words", [["--trainer.max_epochs", "3"], ["--trainer.max_epochs=3"], ["--trainer.max_epochs=9", "--trainer.max_epochs", "3"]]
)
def test_how_many_epochs_are_asked_for_however_it_is_written(words):
    assert epochs_asked(read_grid("paper", [1], words)[0]) == 3


@pytest.mark.parametrize("words", [[f"--trainer.max_epochs={said}"] for said in ("abc", "1e1", "-1", "null", "9" * 5000)])
def test_what_is_no_number_of_epochs_counts_as_a_hundred(words):
    assert epochs_asked(read_grid("digits", [1], words)[0]) == 100


def test_a_number_of_epochs_that_is_missing_is_left_to_fit():
    assert epochs_asked(read_grid("digits", [1], ["--trainer.max_epochs"])[0]) == 100


@pytest.mark.parametrize(("trainer", "epochs"), [("[1]", 4), ("{max_epochs: many}", 100), ("{max_epochs: 0}", 0), ("{}", 4)])
def test_the_last_configuration_that_says_a_number_of_epochs_counts(trainer, epochs):
    Path("last.yaml").write_text(f"trainer: {trainer}\n")
    Path("grid.yaml").write_text("a: {configs: [demo+last.yaml]}\n")
    assert epochs_asked(read_grid("grid.yaml", [1])[0]) == epochs


def test_a_sweep_of_a_run_that_ended_early_ends_with_all_of_it(row, capsys):
    (leave(row, 0, "finished") / "metrics.csv").write_text("epoch,step,name,value\n0,3,train/loss_epoch,1.0\n")
    assert main(["sweep", "--grid", "grid.yaml", "--max_epochs", "3"]) == 0
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first == "grid: 1 of 3 epochs (33 %), time left not known yet"
    assert last == "grid: 1 of 1 epochs (100 %), nothing left"

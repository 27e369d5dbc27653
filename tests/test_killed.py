"""A run that is killed, stopped or starved of disk goes on with --resume to the same bytes as one that never stopped."""

import csv
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from snn_sparsity.commands.main import main
from snn_sparsity.commands.train import TrainingCLI
from snn_sparsity.runs.directory import own_run, take_hold
from snn_sparsity.runs.files import hold
from snn_sparsity.training.run_record import RunRecord
from tests.killing import Ask, Fail, Fill, Kill, Note, is_held, run

TINY = str(Path(__file__).parent / "tiny.yaml")
FIT = [
    "fit", "--config", TINY, "--model.network", "tests.killing.DroppingNetwork", "--model.lr", "0.01", "--data.batch_size", "8",
    "--data.train_images", "24", "--data.test_images", "12", "--data.validation", "test", "--trainer.max_epochs", "3",
    "--trainer.log_every_n_steps", "1", "--trainer.default_root_dir", ".", "--probes.fgsm", "null", "--probes.pgd.attack.steps", "3",
    "--probes.codebook.every_n_epochs", "1",
]  # fmt: skip
RUN = Path("tiny/seed_3407/0")
RESUME = [*FIT, "--resume"]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The run that nothing happened to; ``moments.txt`` has all its moments."""
    return made_in(tmp_path_factory.mktemp("unbroken"), Note("moments.txt"), 0)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A run that was killed in an attack of its third epoch."""
    return made_in(tmp_path_factory.mktemp("killed"), Kill(30, "gradient"), -signal.SIGKILL)


def made_in(folder, act, exit_code, *more):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run([*FIT, *more], act) == exit_code
    return folder / RUN


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


def printed():
    return Path("output.txt").read_text()


def record(run=RUN):
    return json.loads((run / "run.json").read_text())


def metrics(run):
    with (run / "metrics.csv").open(newline="") as file:
        return [row for row in csv.reader(file) if not row[2].startswith("time/")]


def curves(run):
    """Every scalar as TensorBoard reads it."""
    events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if not tag.startswith("time/")]
    return {tag: [(event.step, repr(event.value)) for event in events.Scalars(tag)] for tag in tags}


def assert_same(other):
    """The run here and another: weights, metrics and curves are equal, and nothing lies about."""
    for name in ("last", "best"):
        mine, others = (torch.load(each / f"{name}.ckpt", weights_only=True) for each in (RUN, other))
        assert mine["global_step"] == others["global_step"]
        assert all(torch.equal(tensor, others["state_dict"][key]) for key, tensor in mine["state_dict"].items())
    assert metrics(RUN) == metrics(other)
    assert curves(RUN) == curves(other)
    assert [path.name for path in RUN.parent.iterdir()] == ["0"]
    others = {path.suffix for path in RUN.iterdir() if not path.name.startswith("events.")}
    assert others <= {".csv", ".yaml", ".json", ".ckpt", ".lock"}
    assert record()["status"] == "finished"


# Killed ----------------------------------------------------------------------------------------------------------------------


def test_killed_in_a_training_step_an_attack_and_a_checkpoint(unbroken):
    assert run(FIT, Kill(5, "train")) == -signal.SIGKILL
    assert run(RESUME, Kill(4, "gradient")) == -signal.SIGKILL
    # Renamed: the metrics, the record, the best checkpoint, the new one, and last.ckpt to previous.ckpt; the new one to last.ckpt is next.
    assert run(RESUME, Kill(6, "rename")) == -signal.SIGKILL
    assert not (RUN / "last.ckpt").exists()
    assert (RUN / "last.new").is_file()
    assert run(RESUME) == 0
    assert_same(unbroken)
    assert [part["status"] for part in record()["earlier"]] == ["running"] * 3


@pytest.mark.long
@pytest.mark.parametrize("seed", range(10))
def test_killed_at_a_random_moment(seed, unbroken):
    moments = (unbroken.parents[2] / "moments.txt").read_text().split()
    generator = random.Random(seed)
    assert run(FIT, Kill(generator.randint(1, len(moments)))) == -signal.SIGKILL
    # Half of them are killed once more.
    if seed % 2:
        assert run(RESUME, Kill(generator.randint(1, 20))) == -signal.SIGKILL
    assert run(RESUME) == 0
    assert_same(unbroken)


def test_killed_before_the_first_checkpoint_it_begins_again_in_its_directory(unbroken):
    assert run(FIT, Kill(2, "metrics")) == -signal.SIGKILL
    assert not list(RUN.glob("*.ckpt"))
    assert metrics(RUN)[1:]
    assert run(RESUME) == 0
    assert_same(unbroken)


def test_killed_where_steps_are_counted(tmp_path):
    # Two epochs of three steps each, and two more.
    limit = ["--trainer.max_steps", "8"]
    (tmp_path / "whole").mkdir()
    whole = made_in(tmp_path / "whole", None, 0, *limit)
    assert torch.load(whole / "last.ckpt", weights_only=True)["global_step"] == 8
    assert [step for step, _ in curves(whole)["train/loss_step"]] == list(range(8))
    # In the first step of the third epoch; two epochs are kept.
    assert run([*FIT, *limit], Kill(7, "train")) == -signal.SIGKILL
    assert torch.load(RUN / "last.ckpt", weights_only=True)["global_step"] == 6
    assert run([*RESUME, *limit]) == 0
    assert_same(whole)


def test_the_curves_of_the_unbroken_run_are_all_there(unbroken):
    assert [step for step, _ in curves(unbroken)["train/loss_step"]] == list(range(9))
    assert [step for step, _ in curves(unbroken)["val/accuracy"]] == [2, 5, 8]
    assert len({row[3] for row in metrics(unbroken) if row[2] == "val/accuracy"}) > 1


# Damaged ---------------------------------------------------------------------------------------------------------------------


def truncate(file):
    file.write_bytes(file.read_bytes()[:-1000])


def flip(file):
    content = bytearray(file.read_bytes())
    place = content.index(torch.load(file, weights_only=True)["state_dict"]["network.conv1.weight"].numpy().tobytes())
    content[place] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, flip])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(damage, killed, unbroken):
    shutil.copytree(killed, RUN)
    assert torch.load(RUN / "previous.ckpt", weights_only=True)["global_step"] == 3
    damage(RUN / "last.ckpt")
    assert run(RESUME) == 0
    (told,) = [line for line in printed().splitlines() if "damaged" in line]
    assert told == f"{RUN}/last.ckpt is damaged: it is left out, and the one before it is used."
    assert_same(unbroken)


HEADER = b"epoch,step,name,value\n"


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("run.json", lambda content: content[: len(content) // 2], "run.json cannot be read: "),
        ("run.json", lambda content: b"\xff\xfe" + content, "run.json cannot be read: "),
        ("run.json", lambda content: b'{"status": "running", "earlier": 3}', "run.json is no record of a run: it must be"),
        ("run.json", lambda content: b'[{"status": "running"}]', "run.json is no record of a run: it must be"),
        ("metrics.csv", lambda content: content.replace(HEADER, HEADER + b"garbage\n"), "metrics.csv line 2 is no row"),
        ("metrics.csv", lambda content: content.replace(HEADER, HEADER + b"\n"), "metrics.csv line 2 is no row"),
        ("metrics.csv", lambda content: content.replace(HEADER, HEADER + b"0,abc,x,1\n"), "metrics.csv line 2 is no row"),
        ("metrics.csv", lambda content: content.replace(HEADER, HEADER + b"0,1,\xff\xfe,1\n"), "metrics.csv line 2 cannot be read"),
        ("metrics.csv", lambda content: content.replace(HEADER, b"step,epoch,name,value\n"), "metrics.csv line 1: the columns must be"),
    ],
)
def test_a_damaged_record_is_named_and_nothing_is_touched(name, damage, said, killed, capsys):
    shutil.copytree(killed, RUN)
    (RUN / name).write_bytes(damage((RUN / name).read_bytes()))
    before = files()
    assert main(["fit", "--config", f"{RUN}/config.yaml", "--resume"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert line.startswith(f"snn-sparsity: error: {RUN}/{said}")
    assert files() == before


@pytest.mark.long
def test_without_any_whole_checkpoint_it_begins_again(killed, unbroken):
    shutil.copytree(killed, RUN)
    for name in ("last", "previous"):
        truncate(RUN / f"{name}.ckpt")
    assert run(RESUME) == 0
    assert_same(unbroken)


# Stopped ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "exit_code", "name"), [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")])
def test_stopped_by_hand(number, exit_code, name, unbroken):
    assert run(FIT, Kill(16, "gradient", number)) == exit_code
    assert printed().splitlines()[-1] == f"snn-sparsity: stopped by {name}: with --resume the same command goes on"
    assert "Traceback" not in printed()
    assert (record()["status"], record()["error"]) == ("interrupted", f"Interrupted: {name}")
    if number == signal.SIGTERM:
        assert run(RESUME) == 0
        assert_same(unbroken)


def test_the_second_ctrl_c_kills():
    # The first comes in an attack, the second while the record is written.
    assert run(FIT, Kill(2, "gradient", signal.SIGINT, then=Kill(1, "sync", signal.SIGINT))) == -signal.SIGINT


BOTH = """
import os, signal
from snn_sparsity.runs.interrupts import SIGNALS, interruptible

with interruptible():
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    for number in SIGNALS:
        os.kill(os.getpid(), number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
"""


def test_two_signals_at_once_end_it_without_a_word():
    done = subprocess.run([sys.executable, "-c", BOTH], check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGTERM
    assert done.stderr == ""


@pytest.mark.parametrize(
    "command",
    [["validate", "--config", TINY, "--ckpt_path"], ["audit", "--config", TINY, "--out", "audit", "--ckpt_path"]],
    ids=lambda command: command[0],
)
def test_other_commands_stop_too(command, unbroken):
    shutil.copy(unbroken / "last.ckpt", "a.ckpt")
    assert run([*command, "a.ckpt"], Kill(1, "gradient", signal.SIGTERM)) == 143
    assert printed().splitlines()[-1].startswith("snn-sparsity: stopped by SIGTERM")
    assert "Traceback" not in printed()


# Starved ---------------------------------------------------------------------------------------------------------------------


def told():
    assert "Traceback" not in printed()
    (line,) = [line for line in printed().splitlines() if "error" in line]
    return line


def test_a_disk_without_room_for_a_checkpoint(unbroken):
    assert run(FIT, Fill(4, "checkpoint", 9000)) == 2
    assert told() == f"snn-sparsity: error: {RUN}/last.new cannot be written: File too large"
    assert torch.load(RUN / "last.ckpt", weights_only=True)["global_step"] == 3
    assert not list(RUN.glob("*.part"))
    assert run(RESUME) == 0
    assert_same(unbroken)


def test_a_disk_without_room_for_a_number(unbroken):
    assert run(FIT, Fill(8, "metrics", 5000)) == 2
    assert told().endswith(": File too large")
    assert run(RESUME) == 0
    assert_same(unbroken)


@pytest.mark.parametrize(("kind", "name"), [("sync", "best"), ("rename", "last")])
def test_a_disk_that_becomes_read_only(kind, name):
    # The configuration and the record are written first.
    assert run(FIT, Fail(5, kind, errno.EROFS)) == 2
    assert told().endswith(f"{RUN}/{name}.ckpt cannot be written: Read-only file system")
    assert record()["status"] == "failed"


def test_a_directory_that_cannot_be_made(capsys):
    Path("file").touch()
    assert main([*FIT, "--trainer.default_root_dir", "file"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert line.endswith("file/tiny/seed_3407 cannot be made: file is no folder")
    assert Path("file").read_bytes() == b""


# Which run goes on ---------------------------------------------------------------------------------------------------------


def test_with_another_setting_it_does_not_go_on(killed, capsys):
    shutil.copytree(killed, RUN)
    before = {path: path.stat().st_mtime_ns for path in RUN.rglob("*")}
    for setting, value, names in (
        ("model.lr", "0.02", "model.lr=0.01, not 0.02"),
        ("trainer.max_epochs", "4", "trainer.max_epochs=3, not 4"),
    ):
        assert main([*RESUME, f"--{setting}", value]) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
        assert f"--resume: tiny/seed_3407/0 was made with {names}; give" in line
    assert {path: path.stat().st_mtime_ns for path in RUN.rglob("*")} == before


def test_a_run_is_held_while_it_is_trained_and_no_longer():
    assert run(FIT, Ask(5, "train", RUN / "run.lock")) == 0
    assert Path("held.txt").read_text() == "True"
    assert not is_held(RUN / "run.lock")


def test_a_run_that_is_being_trained_does_not_go_on_twice(killed, capsys):
    shutil.copytree(killed, RUN)
    before = {path: path.stat().st_mtime_ns for path in RUN.rglob("*")}
    held = hold(RUN / "run.lock")
    assert main(RESUME) == 2
    os.close(held)
    assert "tiny/seed_3407/0 is being made by another process" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in RUN.rglob("*")} == before


def files(run=RUN):
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_of_two_that_go_on_at_once_the_second_is_refused_whatever_the_first_is_at(killed, unbroken, monkeypatch):
    shutil.copytree(killed, RUN)
    before_fit = TrainingCLI.before_fit

    def a_moment_later(*args):
        before = files()
        assert run(RESUME) == 2
        assert told() == f"snn-sparsity: error: {RUN} is being made by another process: wait for it, or stop it"
        assert files() == before
        before_fit(*args)

    monkeypatch.setattr(TrainingCLI, "before_fit", a_moment_later)
    assert main(RESUME) == 0
    assert_same(unbroken)
    assert not is_held(RUN / "run.lock")


def test_what_a_run_goes_on_from_is_read_when_nobody_else_is_at_it_any_more(killed, monkeypatch, capsys):
    shutil.copytree(killed, RUN)
    after = {}

    def finished_meanwhile(directory):
        assert run(RESUME) == 0
        after.update(files())
        return take_hold(directory)

    monkeypatch.setattr("snn_sparsity.commands.train.take_hold", finished_meanwhile)
    assert main(RESUME) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{RUN} is finished: nothing to resume"
    assert files() == after


def test_a_run_that_cannot_be_held_stays_as_it_is(killed, capsys):
    shutil.copytree(killed, RUN)
    (RUN / "run.lock").unlink()
    (RUN / "run.lock").mkdir()
    before = files()
    assert main(RESUME) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"snn-sparsity: error: {RUN}/run.lock cannot be written: Is a directory"
    assert files() == before


def test_of_two_that_begin_a_run_at_once_one_is_refused_and_the_other_s_files_stay(monkeypatch, capsys):
    held, setup = [], RunRecord.setup

    def a_moment_later(*args, **kwargs):
        held.append(hold(RUN / "run.lock"))
        (RUN / "metrics.csv").touch()
        setup(*args, **kwargs)

    monkeypatch.setattr(RunRecord, "setup", a_moment_later)
    assert main(FIT) == 2
    os.close(held[0])
    assert "tiny/seed_3407/0 is being made by another process" in capsys.readouterr().err
    assert (RUN / "metrics.csv").exists()


def test_a_finished_run_has_nothing_to_go_on_with(unbroken, capsys):
    shutil.copytree(unbroken, RUN)
    before = {path: path.stat().st_mtime_ns for path in RUN.rglob("*")}
    assert main(RESUME) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "tiny/seed_3407/0 is finished: nothing to resume"
    assert {path: path.stat().st_mtime_ns for path in RUN.rglob("*")} == before


def test_without_a_run_of_these_settings_one_is_begun(unbroken):
    shutil.copytree(unbroken, RUN)
    assert main([*RESUME, "--probes", "null", "--trainer.max_epochs", "1"]) == 0
    assert sorted(path.name for path in RUN.parent.iterdir()) == ["0", "1"]
    assert "resume" not in yaml.safe_load(Path("tiny/seed_3407/1/config.yaml").read_text())


def test_the_newest_run_of_these_settings_goes_on(killed, unbroken):
    shutil.copytree(unbroken, RUN)
    shutil.copytree(killed, RUN.with_name("1"))
    assert run(RESUME) == 0
    assert record(RUN.with_name("1"))["status"] == "finished"
    assert metrics(RUN.with_name("1")) == metrics(unbroken)
    assert not RUN.with_name("2").exists()


def test_a_run_s_own_configuration_names_it_from_anywhere(killed, unbroken):
    shutil.copytree(killed, "elsewhere/0")
    assert run(["fit", "--config", "elsewhere/0/config.yaml", "--resume"]) == 0
    assert metrics(Path("elsewhere/0")) == metrics(unbroken)
    assert not Path("runs").exists()


def test_a_run_whose_record_is_lost_is_still_that_run(killed, unbroken):
    shutil.copytree(killed, "elsewhere/0")
    Path("elsewhere/0/run.json").unlink()
    assert run(["fit", "--config", "elsewhere/0/config.yaml", "--resume"]) == 0
    assert metrics(Path("elsewhere/0")) == metrics(unbroken)
    assert not Path("runs").exists()


@pytest.mark.parametrize("left", [[RUN / "config.yaml"], [Path("moved/config.yaml"), Path("moved/best.ckpt")]])
def test_a_run_of_which_nothing_is_left_to_go_on_with_is_told(left, killed, capsys):
    for file in left:
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(killed / file.name, file)
    before = files(Path())
    assert main(["fit", "--config", str(left[0]), "--resume"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert f"--resume: {left[0].parent} has no run.json, so there is no run to go on with" in line
    assert files(Path()) == before


def test_a_configuration_of_one_s_own_may_have_the_name_of_a_run_s():
    assert own_run(["config.yaml"]) is None
    shutil.copy(TINY, "config.yaml")
    assert own_run(["config.yaml"]) is None
    Path("run.lock").touch()
    assert own_run(["config.yaml"]) == Path()
    assert own_run(["config.yaml", "other.yaml"]) is None


def test_it_does_not_go_on_with_other_images(killed, monkeypatch, capsys):
    shutil.copytree(killed, RUN)
    monkeypatch.setattr("tests.tiny.TinyDataModule.identity", lambda self: {"train": "others"})
    kept = (RUN / "run.json").read_text()
    assert main(RESUME) == 2
    assert "tiny/seed_3407/0 cannot go on: data is not what run.json says" in capsys.readouterr().err
    assert (RUN / "run.json").read_text() == kept

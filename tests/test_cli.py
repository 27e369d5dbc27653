"""The command line as a user meets it."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import loguru
import pytest
import torch
import yaml
from lightning import Callback
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from snn_sparsity.commands.main import main
from snn_sparsity.commands.network import quieten
from snn_sparsity.configs import shipped
from snn_sparsity.encoders import PhaseEncoder
from snn_sparsity.runs.directory import take_hold
from snn_sparsity.runs.records import PHASE_CODE
from snn_sparsity.training.run_record import environment
from tests.killing import is_held

PROBE_PAGE = Path(__file__).parents[1] / "docs/probe.md"
TINY = ["--config", str(Path(__file__).parent / "tiny.yaml")]
FEW = ["--data.train_images", "16", "--data.test_images", "8", "--trainer.max_epochs", "1"]
PLAIN = ["--probes", "null", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]


pytestmark = pytest.mark.usefixtures("elsewhere")


class NoForward(torch.nn.Module):
    def __init__(self, num_classes=4):
        super().__init__()


def rows(run="runs/tiny/seed_3407/0"):
    with open(Path(run) / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def value(name, run="runs/tiny/seed_3407/0"):
    return float([row for row in rows(run) if row["name"] == name][-1]["value"])


def error(capsys, *arguments):
    """Exit code 2, one line, nothing written."""
    before = sorted(Path.cwd().rglob("*"))
    capsys.readouterr()
    assert main(list(arguments)) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(lines) == 1, lines
    assert sorted(Path.cwd().rglob("*")) == before
    return lines[0]


# What a run leaves behind ---------------------------------------------------------------------------------------------------


def test_fit_leaves_a_complete_run(capsys):
    assert main(["fit", *TINY, "--trainer.max_epochs", "2"]) == 0
    run = Path("runs/tiny/seed_3407/0")
    assert {path.name for path in run.iterdir()} >= {"config.yaml", "run.json", "metrics.csv", "best.ckpt", "last.ckpt"}
    record = json.loads((run / "run.json").read_text())
    assert 0 < record["training_seconds"] < record["wall_seconds"]
    assert (record["status"], record["command"], record["epochs"]) == ("finished", "fit", 2)
    assert record["packages"]["torch"] == torch.__version__
    assert re.fullmatch(r"[0-9a-f]{64}", record["data"]["splits"]["train"]["sha256"])
    assert record["probes"]["pgd"].startswith("spikes, BatchNorm batch, PGD(")
    names = {row["name"] for row in rows()}
    assert names >= {"train/loss_epoch", "val/accuracy", "fgsm/accuracy", "pgd/accuracy", "codebook/accuracy",
                     "grad_zero/neuron/03_sn1", "grad_norm_mean/conv", "time/pgd_seconds"}  # fmt: skip
    assert [row["epoch"] for row in rows() if row["name"] == "val/accuracy"] == ["0", "1"]
    printed = capsys.readouterr().out
    assert re.search(r"^pgd +[\d.]+ .* spikes, BatchNorm batch, PGD\(", printed, re.M)
    assert re.search(r"^neuron +[\d.]+ +\S+$", printed, re.M)
    assert re.search(rf"^Curves: \S*tensorboard --logdir {run}$", printed, re.M)


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_spiking_resnets_keep_the_reset_in_the_backward_pass(depth, capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--config", f"spiking{depth}_maxpool", "--print_config"])
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["model"]["network"]["init_args"]["neuron"]["detach_reset"] is False


def test_the_next_run_gets_the_next_directory():
    for _ in range(2):
        assert main(["fit", *TINY, *FEW]) == 0
    assert sorted(path.name for path in Path("runs/tiny/seed_3407").iterdir()) == ["0", "1"]
    assert main(["fit", *TINY, *FEW, "--seed_everything", "5"]) == 0
    assert Path("runs/tiny/seed_5/0/metrics.csv").is_file()


def test_a_saved_configuration_repeats_the_run():
    assert main(["fit", *TINY, *FEW]) == 0
    assert main(["fit", "--config", "runs/tiny/seed_3407/0/config.yaml"]) == 0
    first, second = ([row for row in rows(f"runs/tiny/seed_3407/{k}") if not row["name"].startswith("time/")] for k in (0, 1))
    assert first == second
    weights = [torch.load(f"runs/tiny/seed_3407/{k}/last.ckpt", weights_only=True)["state_dict"] for k in (0, 1)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_test_of_a_checkpoint_restores_model_and_data_by_itself():
    assert main(["fit", *TINY, *FEW, "--data.classes", "3", "--data.encoder", "LatencyEncoder", "--data.encoder.num_steps", "3",
                 "--data.validation", "test"]) == 0  # fmt: skip
    run = Path("runs/tiny/seed_3407/0")
    # No configuration: class count, code and sizes come from the checkpoint; the probes are the paper's.
    assert main(["test", "--ckpt_path", str(run / "last.ckpt"), "--probes.pgd", "null", "--probes.codebook", "null"]) == 0
    config = yaml.safe_load((run / "test" / "config.yaml").read_text())
    assert config["data"]["class_path"] == "tests.tiny.TinyDataModule"
    assert config["data"]["init_args"]["classes"] == 3
    assert config["data"]["init_args"]["encoder"]["class_path"].endswith("LatencyEncoder")
    assert value("test/accuracy", run / "test") == value("val/accuracy")
    assert value("fgsm/accuracy", run / "test") == value("fgsm/accuracy")
    assert json.loads((run / "test" / "run.json").read_text())["status"] == "finished"


def test_what_spikingjelly_says_of_its_kernels_is_left_out():
    """On a GPU it has a line for every kernel that was tried, in the middle of the table."""
    said, speak = [], "from loguru import logger; logger.info('cuda unavailable')"
    sink = loguru.logger.add(said.append)
    loguru.logger.enable("spikingjelly")
    exec(speak, {"__name__": "spikingjelly._ops.selection"})
    assert len(said) == 1
    quieten()
    exec(speak, {"__name__": "spikingjelly._ops.selection"})
    loguru.logger.remove(sink)
    assert len(said) == 1


@pytest.mark.parametrize("command", ["test", "validate"])
def test_a_second_test_takes_the_place_of_the_first(command, caplog):
    assert main(["fit", *TINY, *FEW, *PLAIN]) == 0
    run = Path("runs/tiny/seed_3407/0")
    again = [command, *TINY, *FEW, "--ckpt_path", f"{run}/last.ckpt"]
    probes = ["--probes.fgsm", "null", "--probes.codebook", "null", "--probes.sparsity", "null"]
    assert main([*again, *probes]) == 0
    first = (run / command / "metrics.csv").read_text()
    assert ",pgd/accuracy," in first
    assert main([*again, *PLAIN]) == 0
    assert [row["name"] for row in rows(run / command) if row["name"].startswith("pgd/")] == []
    assert (run / command / "metrics.csv.old").read_text() == first
    assert "metrics.csv is an earlier run's: it is now metrics.csv.old" in caplog.text
    # TensorBoard forgets the first as well.
    events = EventAccumulator(str(run / command)).Reload()
    (accuracy,) = [tag for tag in events.Tags()["scalars"] if tag in ("test/accuracy", "val/accuracy")]
    assert [len(events.Scalars(tag)) for tag in (accuracy, "pgd/accuracy")] == [1, 0]


def test_two_tests_of_one_checkpoint_at_once_are_refused(capsys):
    assert main(["fit", *TINY, *FEW, *PLAIN]) == 0
    folder = Path("runs/tiny/seed_3407/0/test")
    held = take_hold(folder)
    message = error(capsys, "test", *TINY, *PLAIN, "--ckpt_path", "runs/tiny/seed_3407/0/last.ckpt")
    os.close(held)
    assert message.endswith(f"{folder} is being made by another process: wait for it, or stop it")
    assert not is_held(folder / "run.lock")


@pytest.mark.parametrize("command", ["validate", "test", "predict", "audit"])
def test_a_run_s_own_config_is_taken_by_every_command(command):
    """As ``sweep --test`` gives it: also what fit alone has a use for."""
    assert main(["fit", *TINY, *FEW, "--checkpoints", "best"]) == 0
    run = "runs/tiny/seed_3407/0"
    samples = ["--samples", "4"] if command == "audit" else []
    assert main([command, "--config", f"{run}/config.yaml", "--ckpt_path", f"{run}/best.ckpt", *samples]) == 0


def test_validate_and_predict(capsys):
    assert main(["fit", *TINY, *FEW]) == 0
    checkpoint = "runs/tiny/seed_3407/0/last.ckpt"
    capsys.readouterr()
    assert main(["validate", *TINY, *FEW[:4], "--ckpt_path", checkpoint]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^pgd +[0-9.]+ .* spikes, BatchNorm batch, PGD\(eps=8/255, steps=", printed, re.M)
    assert "Validate metric" not in printed  # Lightning's table
    assert value("pgd/accuracy", "runs/tiny/seed_3407/0/validate") == value("pgd/accuracy")
    before = sorted(Path("runs").rglob("*"))
    assert main(["predict", *TINY, *FEW[:4], "--ckpt_path", checkpoint]) == 0
    assert sorted(Path("runs").rglob("*")) == before


def test_what_is_given_wins_over_the_checkpoint():
    assert main(["fit", *TINY, *FEW]) == 0
    checkpoint = "runs/tiny/seed_3407/0/last.ckpt"
    assert main(["fit", "--ckpt_path", checkpoint, "--config", TINY[1], *FEW[:4], "--trainer.max_epochs", "2", "--model.lr", "0.5"]) == 0
    state = torch.load("runs/tiny/seed_3407/1/last.ckpt", weights_only=True)
    assert state["hyper_parameters"]["lr"] == 0.5
    assert state["optimizer_states"][0]["param_groups"][0]["lr"] == 0.5


@pytest.mark.parametrize("command", ["test", "predict"])
def test_settings_of_a_checkpoint_s_own_datamodule_and_network_can_be_changed(command, capsys):
    """Neither class is the paper's, nor named again."""
    assert main(["fit", *TINY, *FEW, "--probes", "null"]) == 0
    checkpoint = ["--ckpt_path", "runs/tiny/seed_3407/0/last.ckpt"]
    assert main([command, *checkpoint, "--data.test_images", "4", "--model.network.pool", "avg", *PLAIN]) == 0
    if command == "test":
        config = yaml.safe_load(Path("runs/tiny/seed_3407/0/test/config.yaml").read_text())
        assert (config["data"]["init_args"]["test_images"], config["model"]["network"]["init_args"]["pool"]) == (4, "avg")
    else:
        assert len(Path("predictions.csv").read_text().splitlines()) == 1 + 4
    assert "test_imags" in error(capsys, command, *checkpoint, "--data.test_imags", "4")


def test_checkpoints_hold_no_code():
    assert main(["fit", *TINY, *FEW]) == 0
    state = torch.load("runs/tiny/seed_3407/0/last.ckpt", weights_only=True)
    assert state["hyper_parameters"]["network"]["init_args"]["num_classes"] == 4


def test_fast_dev_run_keeps_nothing():
    assert main(["fit", *TINY, "--trainer.fast_dev_run", "true"]) == 0
    assert not Path("runs").exists()


# Settings -------------------------------------------------------------------------------------------------------------------


def resolved(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main(["fit", *arguments, "--print_config"])
    assert stop.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


@pytest.mark.parametrize("given", ["sew18_avgpool.yaml", "sew18_avgpool", str(shipped.DIRECTORY / "sew18_avgpool.yaml")])
def test_configurations_by_name_stem_and_path(given, capsys):
    assert resolved(capsys, "--config", given)["model"]["network"]["init_args"]["pool"] == "avg"


def test_the_paper_s_run_exactly(capsys):
    config = resolved(capsys, "--config", "sew18_maxpool.yaml")
    assert (config["seed_everything"], config["trainer"]["max_epochs"]) == (3407, 100)
    assert (config["model"]["lr"], config["model"]["betas"], config["model"]["weight_decay"]) == (1e-3, [0.9, 0.999], 1e-3)
    network = config["model"]["network"]["init_args"]
    assert network == {
        "depth": 18, "pool": "max", "connect": "ADD", "stem": "imagenet",
        "neuron": {"threshold": 1.0, "reset": 0.0, "surrogate": "atan", "alpha": 2.0, "detach_reset": True, "kernel": "auto"},
    }  # fmt: skip
    data = config["data"]["init_args"]
    assert (data["name"], data["batch_size"], data["validation"], data["flip"]) == ("cifar10", 16, "test", True)
    fgsm, pgd, codebook = (config["probes"][name]["init_args"] for name in ("fgsm", "pgd", "codebook"))
    assert (fgsm["space"], fgsm["batch_norm"], fgsm["max_samples"]) == ("spikes", "batch", 1000) == (
        pgd["space"], pgd["batch_norm"], pgd["max_samples"])  # fmt: skip
    assert pgd["attack"]["init_args"]["alpha"] == 0.01
    assert (pgd["attack"]["init_args"]["steps"], codebook["attack"]["init_args"]["steps"]) == (7, 10)
    for probe in (fgsm, pgd, codebook):
        assert probe["attack"]["init_args"]["eps"] == "8/255"
    assert (codebook["space"], codebook["batch_norm"]) == ("image", "eval")


def test_the_paper_s_code_is_named_so_that_its_settings_can_be_changed(capsys):
    assert resolved(capsys)["data"]["init_args"]["encoder"] == PHASE_CODE
    assert vars(PhaseEncoder()).items() >= PHASE_CODE["init_args"].items()
    changed = resolved(capsys, "--data.encoder.weighted", "true", "--data.encoder.num_steps", "8")["data"]["init_args"]["encoder"]
    assert changed == {**PHASE_CODE, "init_args": {"num_steps": 8, "num_bits": 8, "weighted": True}}


def test_null_for_the_code_is_the_paper_s(capsys):
    """As runs have it that were made before the paper's configuration named its code."""
    assert main(["fit", *TINY, *FEW, *PLAIN, "--data.encoder", "null"]) == 0
    capsys.readouterr()
    assert main(["fit", *TINY, *FEW, *PLAIN, "--resume"]) == 0
    assert "is finished: nothing to resume" in capsys.readouterr().out
    checkpoint = ["--ckpt_path", "runs/tiny/seed_3407/0/last.ckpt"]
    assert main(["test", *checkpoint, *PLAIN, "--data.encoder.num_steps", "3"]) == 0
    config = yaml.safe_load(Path("runs/tiny/seed_3407/0/test/config.yaml").read_text())
    assert config["data"]["init_args"]["encoder"]["init_args"]["num_steps"] == 3


def test_the_dataset_switches_by_its_name_and_nothing_else_changes(capsys):
    ten = resolved(capsys, "--config", "sew18_maxpool")
    hundred = resolved(capsys, "--config", "sew18_maxpool", "--data.name", "cifar100")
    assert hundred["data"]["init_args"].pop("name") == "cifar100"
    assert ten["data"]["init_args"].pop("name") == "cifar10"
    assert ten == hundred


def test_probes_are_overridden_by_name(capsys):
    probes = resolved(
        capsys, "--probes.pgd.init_args.attack.init_args.steps", "20", "--probes.fgsm", "null", "--probes.more", "GradientSparsity"
    )["probes"]
    assert probes["pgd"]["init_args"]["attack"]["init_args"]["steps"] == 20
    assert probes["pgd"]["init_args"]["space"] == "spikes"
    assert probes["fgsm"] is None
    assert probes["more"]["class_path"].endswith("GradientSparsity")
    assert probes["codebook"]["init_args"]["attack"]["init_args"]["steps"] == 10


def test_configurations_compose(capsys):
    Path("small.yaml").write_text("data:\n  init_args:\n    batch_size: 4\ntrainer:\n  max_epochs: 3\n")
    config = resolved(capsys, "--config", "sew34_avgpool", "--config", "small.yaml", "--trainer.max_epochs", "5")
    assert config["model"]["network"]["init_args"]["depth"] == 34
    assert config["data"]["init_args"]["batch_size"] == 4
    assert config["trainer"]["max_epochs"] == 5


def test_environment_variables(capsys, monkeypatch):
    monkeypatch.setenv("SNN_SPARSITY_FIT__TRAINER__MAX_EPOCHS", "7")
    assert resolved(capsys)["trainer"]["max_epochs"] == 7
    assert resolved(capsys, "--trainer.max_epochs", "8")["trainer"]["max_epochs"] == 8


def test_ordinary_callbacks_work_too():
    arguments = ["--trainer.callbacks+=LearningRateMonitor", "--trainer.callbacks+=GradientSparsity", "--trainer.callbacks.kinds=[pool]"]
    assert main(["fit", *TINY, *FEW, "--probes", "null", *arguments]) == 0
    names = {row["name"] for row in rows()}
    assert "lr-Adam" in names
    assert "grad_zero/pool/04_maxpool" in names
    assert "grad_zero/conv/01_conv1" not in names


class Wrong(Callback):
    """Has forgotten what its hook is called with."""

    def on_train_start(self):
        """Never come here."""


def test_a_mistake_in_a_callback_of_one_s_own_keeps_its_traceback():
    with pytest.raises(TypeError, match="takes 1 positional argument"):
        main(["fit", *TINY, *FEW, "--trainer.callbacks+", "tests.test_cli.Wrong"])


@pytest.mark.parametrize("name", [name for name in shipped.names() if name != "paper.yaml"])
def test_every_shipped_configuration_runs(name):
    arguments = ["--data", "tests.tiny.TinyDataModule", "--data.batch_size", "2", "--data.encoder", "PhaseEncoder"]
    if "networks.VGG" in (text := (shipped.DIRECTORY / name).read_text()):
        narrow = "[4,A,8,8,A]" if "thresholds: [1.0, 0.5, 0.5" in text else "[4,A,8,8,A,8,8,8,A,8,8]"
        arguments += ["--model.network.channels", narrow, "--model.network.hidden", "8"]
    if "networks.WideResNet" in text:
        arguments += ["--model.network.width", "1"]
    tiny = ["--data.encoder.num_steps", "2", "--trainer.fast_dev_run", "true", "--trainer.accelerator", "cpu"]
    attacks = ["--probes.pgd.attack.steps", "1"] + (["--probes.codebook.attack.steps", "1"] if "apgd" not in text or "sew" in name else [])
    attacks += ["--probes.apgd.attack.steps", "2"] if "apgd" in text else []
    if "pgd: null" in (shipped.DIRECTORY / name).read_text():
        attacks = []
    assert main(["fit", "--config", name, *arguments, *tiny, *attacks]) == 0


# Other commands -------------------------------------------------------------------------------------------------------------


def test_configs_lists_and_copies(capsys):
    assert main(["configs"]) == 0
    assert "sew18_maxpool.yaml" in capsys.readouterr().out
    assert main(["configs", "sew18_maxpool"]) == 0
    assert Path("sew18_maxpool.yaml").read_text() == (shipped.DIRECTORY / "sew18_maxpool.yaml").read_text()
    assert "is there already" in error(capsys, "configs", "sew18_maxpool")
    assert "no shipped configuration" in error(capsys, "configs", "vgg")


def test_help_and_version(capsys):
    assert main([]) == main(["--help"]) == 0
    assert "fit" in capsys.readouterr().out
    assert main(["--version"]) == 0


def test_help_does_not_import_torch():
    code = "import sys; from snn_sparsity.commands.main import main; main(['--help']); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


# A user's own probe ----------------------------------------------------------------------------------------------------------


def blocks_shown(language):
    return re.findall(rf"```{language}\n(.*?)```", PROBE_PAGE.read_text(), re.S)


def test_the_probe_of_the_documentation_runs_from_any_directory():
    source = next(block for block in blocks_shown("python") if "class MyProbe" in block)
    config = next(block for block in blocks_shown("yaml") if "my_probe.MyProbe" in block)
    assert len(source.strip().splitlines()) <= 25
    Path("my_probe.py").write_text(source)
    Path("mine.yaml").write_text(config)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}  # for tests.tiny alone
    command = [sys.executable, "-m", "snn_sparsity", "fit", *TINY, *FEW, "--config", "mine.yaml"]
    subprocess.run(command, check=True, capture_output=True, env=environment)
    run = next(Path("runs").rglob("metrics.csv")).parent
    logged = {row["name"] for row in rows(run)}
    name = next(iter(yaml.safe_load(config)["probes"]))
    assert [tag for tag in logged if tag.startswith(f"{name}/")]


# Mistakes -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.network.pool", "median"], "--model.network.pool: Expected one of 'max', 'avg'. Got value: median"),
        (["--model.network.depth", "20"], "depth: Expected one of 18, 34, 50, 101, 152. Got value: 20"),
        (["--data.name", "imagenet"], "--data.name: Expected one of 'cifar10', 'cifar100'. Got value: imagenet"),
        (["--data.encoder", "MorseEncoder"], "--data.encoder"),
        (["--data.encoder", "null", "--data.encoder.num_steps", "8"], "--data.encoder: give a class, for Encoder is the base of all"),
        (["--seed_everything", "-1"], "seed_everything=-1 is not allowed: give a whole number of at least 0"),
        (["--seed_everything", "4294967296"], "seed_everything=4294967296 is not allowed: give a whole number of at least 0"),
        (["--model.network", "tests.test_cli.NoForward"], "--model.network: NoForward has no method forward"),
        (["--probes.pgd.space", "pixels"], "--probes.pgd.space: Expected one of 'image', 'spikes'. Got value: pixels"),
        (["--probes.pgd.attack.eps", "-1"], "--probes.pgd.attack.eps=-1.0 is not allowed: give a number of at least 0"),
        (["--probes.pgd.attack.alpha", "0"], "alpha=0.0 is not allowed: give a number above 0"),
        (["--probes.pgd.attack.steps", "0"], "steps=0 is not allowed: give a whole number of at least 1"),
        (["--probes.codebook.attack.eps", "0.05"], "eps=0.05 is 12.75 grey levels"),
        (["--data.encoder", "PhaseEncoder", "--data.encoder.num_steps", "0"], "num_steps=0 is not allowed"),
        (["--data.encoder", "PhaseEncoder", "--data.encoder.num_bits", "9"], "num_bits=9 is not allowed"),
        (["--data", "ImageFolderDataModule", "--data.root", "nowhere"], "data.root=nowhere: nowhere/train is no folder"),
        (["--trainer.max_epoch", "3"], "--trainer.max_epoch"),
        (["--trainer.precision", "17"], "--trainer.precision"),
        (["--seed_everything", "true"], "seed_everything=true is not allowed: give a whole number"),
        (["--seed_everything", "x"], "--seed_everything"),
        (["--config", "nope"], "--config nope is no file and no shipped configuration"),
        (["--ckpt_path", "nope.ckpt"], "--ckpt_path nope.ckpt is no file"),
        (["--probes.mine", "my_missing.Probe"], "my_missing"),
        (["--model=[1, 2"], "--model"),
        (["--model", "5"], "--model"),
    ],
)
def test_mistakes_get_one_line(arguments, message, capsys):
    assert message in error(capsys, "fit", *arguments)


def test_an_old_spikingjelly(capsys, monkeypatch):
    monkeypatch.setattr("snn_sparsity.commands.main.version", lambda name: "0.0.0.0.14")
    assert "SpikingJelly 0.0.0.0.14 is not supported" in error(capsys, "fit")


def test_unknown_commands(capsys):
    assert "unknown command 'train'" in error(capsys, "train")


def test_a_broken_configuration_file(capsys):
    Path("broken.yaml").write_text("model: [unclosed\n")
    assert "broken.yaml" in error(capsys, "fit", "--config", "broken.yaml")


def test_bad_checkpoints(capsys):
    Path("text.ckpt").write_text("no checkpoint")
    assert "no readable checkpoint" in error(capsys, "test", "--ckpt_path", "text.ckpt")
    torch.save({"weights": 1}, "other.ckpt")
    assert "holds no state_dict" in error(capsys, "test", "--ckpt_path", "other.ckpt")


def test_a_checkpoint_of_another_class_count(capsys):
    assert main(["fit", *TINY, *FEW]) == 0
    message = error(capsys, "test", *TINY, "--data.classes", "5", "--ckpt_path", "runs/tiny/seed_3407/0/last.ckpt")
    assert "'network.fc.weight' of shape [4, 16], this network of shape [5, 16]: it was made for another class count" in message


def test_a_malicious_checkpoint_is_not_executed(capsys):
    class Bomb:
        def __reduce__(self):
            return (open, ("exploded", "w"))

    torch.save({"state_dict": Bomb()}, "bomb.ckpt")
    assert "no readable checkpoint" in error(capsys, "test", "--ckpt_path", "bomb.ckpt")
    assert not Path("exploded").exists()


def test_a_missing_dataset_leaves_no_run(capsys, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    # urllib keeps the proxies of its first call.
    monkeypatch.setattr("urllib.request._opener", None)
    message = error(capsys, "fit", "--data.url", "http://127.0.0.1:9/cifar.tar.gz", "--data.root", "archive")
    assert "Put cifar-10-python.tar.gz (MD5 c58f30108f718f92721af3b95e74349a) there" in message


@pytest.mark.parametrize(
    "error", [FileNotFoundError("git"), subprocess.CalledProcessError(128, "git"), subprocess.TimeoutExpired("git", 10)]
)
def test_a_git_that_fails_or_hangs_stops_nothing(monkeypatch, error):
    monkeypatch.setattr(subprocess, "run", Mock(side_effect=error))
    assert environment(torch.device("cpu"))["git_commit"] is None

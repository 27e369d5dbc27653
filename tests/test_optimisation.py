"""Any optimiser and schedule of PyTorch, and what of a checkpoint's gives way to what was changed since."""

import csv
import json
import signal
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from lightning import Trainer

from snn_sparsity.classifier import SpikingClassifier
from snn_sparsity.commands.main import main
from snn_sparsity.validation import InputError
from tests.killing import Kill, run
from tests.tiny import TinyDataModule, TinyNetwork

TINY = str(Path(__file__).parent / "tiny.yaml")
FIT = [
    "fit", "--config", TINY, "--probes", "null", "--data.batch_size", "20", "--trainer.max_epochs", "4",
    "--trainer.log_every_n_steps", "1", "--trainer.default_root_dir", ".", "--trainer.enable_model_summary", "false",
]  # fmt: skip
SGD = ["--optimizer", "SGD", "--optimizer.lr", "0.1", "--optimizer.momentum", "0.9"]
COSINE = ["--lr_scheduler", "CosineAnnealingLR", "--lr_scheduler.T_max", "8", "--lr_scheduler_interval", "step"]
STEP = ["--lr_scheduler", "StepLR", "--lr_scheduler.step_size", "1"]
SWA = [
    "--trainer.callbacks",
    "StochasticWeightAveraging",
    "--trainer.callbacks.swa_lrs",
    "0.05",
    "--trainer.callbacks.swa_epoch_start",
    "2",
]
MONITOR = ["--trainer.callbacks+", "LearningRateMonitor"]
RUN = Path("tiny/seed_3407/0")


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


def state(run=RUN):
    return torch.load(run / "last.ckpt", weights_only=True)


def group(run=RUN):
    return state(run)["optimizer_states"][0]["param_groups"][0]


def rates(run=RUN, name="lr-Adam"):
    with (run / "metrics.csv").open(newline="") as file:
        return [float(row["value"]) for row in csv.DictReader(file) if row["name"] == name]


def assert_same(one, other):
    """What trains on, and what was measured, is equal in two runs, bit for bit."""
    for name in ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step"):
        same(state(one)[name], state(other)[name], name)
    kept = [{name: value for name, value in state(run)["callbacks"].items() if "Checkpoint" not in name} for run in (one, other)]
    same(*kept, "callbacks")
    rows = [[row for row in (run / "metrics.csv").read_text().splitlines() if ",time/" not in row] for run in (one, other)]
    assert rows[0] == rows[1]


def same(one, other, name):
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), name
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), name
        for key in one:
            same(one[key], other[key], f"{name}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), name
        for place, pair in enumerate(zip(one, other, strict=True)):
            same(*pair, f"{name}[{place}]")
    else:
        assert repr(one) == repr(other), name


# By name -----------------------------------------------------------------------------------------------------------------------


def test_an_optimiser_and_a_schedule_by_name(capsys):
    assert main([*FIT, *SGD, *COSINE, "--trainer.max_epochs", "1", *MONITOR]) == 0
    # Two steps of eight: 0.1 (1 + cos(pi k/8)) / 2.
    assert rates(name="lr-SGD") == pytest.approx([0.1, 0.0961940])
    assert group()["momentum"] == 0.9
    assert group()["lr"] == pytest.approx(0.0853553)
    assert "Optimizer: SGD(lr=0.1, momentum=0.9), CosineAnnealingLR(T_max=8)." in capsys.readouterr().out
    assert json.loads((RUN / "run.json").read_text())["optimizer"].startswith("SGD(lr=0.1")
    assert yaml.safe_load((RUN / "config.yaml").read_text())["optimizer"]["class_path"] == "torch.optim.SGD"
    # A checkpoint brings its own along.
    assert main([*FIT, "--ckpt_path", str(RUN / "last.ckpt"), "--trainer.max_epochs", "2"]) == 0
    assert state(RUN.with_name("1"))["lr_schedulers"][0]["last_epoch"] == 4


def test_a_schedule_counts_epochs_unless_told_otherwise():
    assert main([*FIT, *STEP, "--model.lr", "0.01", *MONITOR]) == 0
    assert rates() == pytest.approx([1e-2, 1e-3, 1e-4, 1e-5])


def test_the_paper_s_adam_stays_the_default():
    classifier = SpikingClassifier(TinyNetwork())
    optimizer = classifier.configure_optimizers()
    assert type(optimizer) is torch.optim.Adam
    assert {"lr": 1e-3, "betas": (0.9, 0.999), "weight_decay": 1e-3, "fused": True}.items() <= optimizer.defaults.items()


@pytest.mark.parametrize("name", ["AdamW", "RMSprop", "Adagrad", "NAdam", "LBFGS"])
def test_other_optimisers_train(name, trainer_options):
    classifier = SpikingClassifier(TinyNetwork(), optimizer=getattr(torch.optim, name))
    before = [parameter.clone() for parameter in classifier.parameters()]
    Trainer(max_epochs=1, **trainer_options).fit(classifier, datamodule=TinyDataModule())
    assert not any(torch.equal(*pair) for pair in zip(before, classifier.parameters(), strict=True))


def test_a_schedule_that_watches_a_number(trainer_options):
    plateau = partial(torch.optim.lr_scheduler.ReduceLROnPlateau, patience=0, threshold=10.0)
    classifier = SpikingClassifier(TinyNetwork(), lr=0.01, lr_scheduler=plateau)
    trainer = Trainer(max_epochs=3, **trainer_options)
    trainer.fit(classifier, datamodule=TinyDataModule())
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-5)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--optimizer", "Nope"], "--optimizer: "),
        (["--optimizer", "SGD", "--optimizer.lr", "fast"], "lr"),
        (["--optimizer", "SGD", "--optimizer.lr", "-1"], "Invalid learning rate: -1"),
        (["--optimizer", "Muon"], "Muon only supports 2D parameters"),
        (["--optimizer", "SparseAdam"], "SparseAdam does not support dense gradients"),
        (["--lr_scheduler", "CosineAnnealingLR"], "T_max"),
        (["--lr_scheduler", "OneCycleLR", "--lr_scheduler.max_lr", "0.1"], "total_steps"),
        (["--lr_scheduler", "StepLR", "--lr_scheduler.step_size", "0"], "modulo by zero"),
        (["--lr_scheduler_interval", "batch"], "lr_scheduler_interval"),
    ],
    ids=lambda given: given[1] if isinstance(given, list) else "",
)
def test_mistakes_get_one_line(given, said, capsys):
    assert main([*FIT, *given]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("snn-sparsity: error: ")]
    assert said in line
    assert not RUN.exists()


# Going on ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [[*SGD, *COSINE], STEP, [*SGD, *SWA]], ids=["momentum and cosine", "steps", "averaged weights"])
def test_killed_and_resumed_it_ends_with_the_same_bytes(options, tmp_path, monkeypatch):
    # The sixth value is logged in the third epoch: averaging has begun.
    assert run([*FIT, *options], Kill(8, "metrics")) == -signal.SIGKILL
    assert 0 < state()["epoch"] < 4
    assert run([*FIT, *options, "--resume"]) == 0
    (tmp_path / "unbroken").mkdir()
    monkeypatch.chdir(tmp_path / "unbroken")
    assert run([*FIT, *options]) == 0
    assert_same(tmp_path / RUN, RUN)


def test_the_averaged_network_is_kept_with_its_batch_statistics():
    # Averaging ends with an epoch that takes no step.
    assert main([*FIT, *SGD, *SWA, "--trainer.max_epochs", "3"]) == 0
    kept = state()
    assert kept["epoch"] == 4
    assert kept["state_dict"]["network.bn1.running_mean"].count_nonzero() == 8
    average = kept["callbacks"]["StochasticWeightAveraging"]["average_model_state"]
    assert torch.equal(kept["state_dict"]["network.conv1.weight"], average["network.conv1.weight"])
    (callback,) = yaml.safe_load((RUN / "config.yaml").read_text())["trainer"]["callbacks"]
    assert callback["init_args"]["device"] == "cpu"


def fitted(options, resume=None, callbacks=(), epochs=2, **settings):
    torch.manual_seed(0)
    classifier = SpikingClassifier(TinyNetwork(), **settings)
    trainer = Trainer(max_epochs=epochs, callbacks=list(callbacks), **options | {"enable_checkpointing": False})
    trainer.fit(classifier, datamodule=TinyDataModule(), ckpt_path=resume)
    trainer.save_checkpoint(f"{epochs}.ckpt", weights_only=False)
    return trainer.optimizers[0].param_groups[0]


def test_what_was_changed_wins_where_nothing_else_owns_it(trainer_options):
    fitted(trainer_options, lr=0.01)
    group = fitted(trainer_options, resume="2.ckpt", epochs=4, lr=0.5, betas=(0.8, 0.99))
    assert (group["lr"], group["betas"], group["weight_decay"]) == (0.5, (0.8, 0.99), 1e-3)


def test_what_was_not_changed_stays_what_it_had_become(trainer_options):
    checkpoint = fitted(trainer_options, lr=0.01) and torch.load("2.ckpt", weights_only=True)
    # As a tuner may have set it.
    checkpoint["optimizer_states"][0]["param_groups"][0]["lr"] = 0.07
    torch.save(checkpoint, "2.ckpt")
    assert fitted(trainer_options, resume="2.ckpt", epochs=3, lr=0.01, weight_decay=0.5)["lr"] == 0.07
    assert fitted(trainer_options, resume="2.ckpt", epochs=4, lr=0.02)["lr"] == 0.02


def test_a_schedule_owns_the_rate_and_nothing_else(trainer_options, caplog):
    halve = partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5)
    fitted(trainer_options, lr=0.08, lr_scheduler=halve)
    group = fitted(trainer_options, resume="2.ckpt", epochs=3, lr=1.0, weight_decay=0.25, lr_scheduler=halve)
    assert (group["lr"], group["weight_decay"]) == (pytest.approx(0.01), 0.25)
    assert "lr of the checkpoint's schedule goes on" in caplog.text


def test_another_schedule_begins_at_its_start(trainer_options, caplog):
    steps = torch.optim.lr_scheduler.StepLR
    fitted(trainer_options, lr=0.08, lr_scheduler=partial(steps, step_size=1, gamma=0.5))
    assert fitted(trainer_options, resume="2.ckpt", epochs=3, lr=0.08, lr_scheduler=partial(steps, step_size=1, gamma=0.1))["lr"] == (
        pytest.approx(0.008)
    )
    assert fitted(trainer_options, resume="2.ckpt", epochs=3, lr=0.08)["lr"] == 0.08
    one_cycle = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=1.0, total_steps=4)
    assert fitted(trainer_options, resume="2.ckpt", epochs=3, lr=0.08, lr_scheduler=one_cycle)["max_lr"] == 1.0
    assert "was another" in caplog.text


def test_another_optimiser_begins_without_memory(trainer_options, caplog):
    fitted(trainer_options)
    group = fitted(trainer_options, resume="2.ckpt", epochs=3, optimizer=partial(torch.optim.SGD, lr=0.3, momentum=0.5))
    assert (group["lr"], group["momentum"]) == (0.3, 0.5)
    assert "optimiser was Adam: SGD begins without memory" in caplog.text


def test_options_of_each_group(trainer_options):
    def two(rate, parameters):
        first, *others = parameters
        return torch.optim.SGD([{"params": [first], "lr": rate}, {"params": others}], lr=0.1)

    fitted(trainer_options, optimizer=partial(two, 0.5))
    torch.manual_seed(0)
    classifier = SpikingClassifier(TinyNetwork(), optimizer=partial(two, 0.2))
    trainer = Trainer(max_epochs=3, **trainer_options)
    trainer.fit(classifier, datamodule=TinyDataModule(), ckpt_path="2.ckpt")
    assert [group["lr"] for group in trainer.optimizers[0].param_groups] == [0.2, 0.1]


def test_what_cannot_be_made_is_an_input_error():
    with pytest.raises(InputError, match="cannot be made"):
        SpikingClassifier(TinyNetwork(), optimizer=partial(torch.optim.SGD, lr=-1)).configure_optimizers()

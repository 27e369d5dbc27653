"""Every option of the Trainer works, or is refused with the reason (docs/trainer.md)."""

import sys
from pathlib import Path

import pytest
import torch
from lightning import Trainer

from snn_sparsity.classifier import SpikingClassifier
from snn_sparsity.commands.main import main
from snn_sparsity.training.checkpoints import LastCheckpoint
from tests.killing import DroppingNetwork
from tests.tiny import TinyDataModule

TINY = str(Path(__file__).parent / "tiny.yaml")
FIT = ["fit", "--config", TINY, "--trainer.default_root_dir", ".", "--trainer.enable_model_summary", "false", "--trainer.max_epochs", "2"]
PLAIN = [*FIT, "--probes", "null"]
RUN = Path("tiny/seed_3407/0")


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


def state(run=RUN):
    return torch.load(run / "last.ckpt", weights_only=True)


def names(run=RUN):
    return {row.split(",")[2] for row in (run / "metrics.csv").read_text().splitlines()}


# Where a run stops --------------------------------------------------------------------------------------------------------------


def trained(options, folder, resume=None, **limits):
    torch.manual_seed(0 if resume is None else 99)
    classifier = SpikingClassifier(DroppingNetwork())
    trainer = Trainer(callbacks=[LastCheckpoint(folder)], **options | limits | {"enable_checkpointing": True})
    trainer.fit(classifier, datamodule=TinyDataModule(batch_size=8), ckpt_path=resume)
    return classifier.state_dict()


@pytest.mark.parametrize("steps", [5, 7, 9])
def test_the_rest_of_an_epoch_is_not_dropped(steps, trainer_options):
    unbroken = trained(trainer_options, "whole", max_epochs=3)
    trained(trainer_options, "parts", max_epochs=3, max_steps=steps)
    parts = trained(trainer_options, "parts", resume="parts/last.ckpt", max_epochs=3)
    for name, value in unbroken.items():
        assert torch.equal(value, parts[name]), name


# Tuners --------------------------------------------------------------------------------------------------------------------------


def test_a_learning_rate_finder():
    tuner = [
        "--trainer.callbacks",
        "LearningRateFinder",
        "--trainer.callbacks.num_training_steps",
        "20",
        "--trainer.callbacks.max_lr",
        "0.1",
    ]
    assert main([*PLAIN, *tuner]) == 0
    found = state()["optimizer_states"][0]["param_groups"][0]["lr"]
    assert 1e-8 < found <= 0.1
    assert found != 1e-3
    assert [path.name for path in RUN.glob(".*")] == []


def test_a_batch_size_finder():
    tuner = ["--trainer.callbacks", "BatchSizeFinder", "--trainer.callbacks.max_trials", "2", "--trainer.callbacks.steps_per_trial", "1"]
    assert main([*PLAIN, *tuner, "--data.batch_size", "4"]) == 0
    assert state()["global_step"] == 2 * 40 / 16

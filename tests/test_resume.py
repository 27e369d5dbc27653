"""A run that stops and goes on ends where an unbroken one ends, bit for bit."""

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from snn_sparsity.classifier import SpikingClassifier
from snn_sparsity.encoders import RateEncoder
from snn_sparsity.gradient_rules import PoolGradient
from snn_sparsity.probes import GradientSparsity
from tests.tiny import TinyDataModule, TinyNetwork


def fit(options, epochs, checkpoints=None, resume=None, backward=None):
    torch.manual_seed(0 if resume is None else 99)
    classifier = SpikingClassifier(TinyNetwork(), backward=backward)
    callbacks = [GradientSparsity(), *([checkpoints] if checkpoints else [])]
    trainer = Trainer(max_epochs=epochs, callbacks=callbacks, **options | {"enable_checkpointing": checkpoints is not None})
    # A code and a flip that draw: their numbers too must depend on (seed, epoch, batch) alone.
    trainer.fit(classifier, datamodule=TinyDataModule(encoder=RateEncoder(4), batch_size=8), ckpt_path=resume)
    return classifier.state_dict(), trainer.callback_metrics


def assert_equal(one, other):
    for name, value in one.items():
        if not name.startswith("time/"):
            assert torch.equal(value, other[name]), name


@pytest.mark.parametrize("backward", [None, PoolGradient("random")], ids=repr)
@pytest.mark.parametrize(("every", "files"), [({"every_n_epochs": 1}, "epoch=1-step=10"), ({"every_n_train_steps": 1}, "epoch=1-step=7")])
def test_resume_is_bit_identical(every, files, backward, trainer_options, tmp_path):
    checkpoints = ModelCheckpoint(
        dirpath=tmp_path, filename="epoch={epoch}-step={step}", auto_insert_metric_name=False, save_top_k=-1, **every
    )
    weights, metrics = fit(trainer_options, 3, checkpoints, backward=backward)
    resumed_weights, resumed_metrics = fit(trainer_options, 3, resume=str(tmp_path / f"{files}.ckpt"), backward=backward)
    assert_equal(weights, resumed_weights)
    assert_equal(metrics, resumed_metrics)

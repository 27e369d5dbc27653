"""What one process and many must agree on, as a script: ``python -m tests.ddp_job FOLDER PROCESSES`` (each writes FOLDER/<rank>.pt)."""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from lightning import Callback, LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from snn_sparsity.attacks import FGSM, PGD, CodeBookAscent
from snn_sparsity.classifier import SpikingClassifier
from snn_sparsity.distributed import first_alone
from snn_sparsity.encoders import DirectEncoder, PhaseEncoder, RateEncoder
from snn_sparsity.objectives import AdversarialTraining, SharedNoise, SparseGradient
from snn_sparsity.probes import (
    AdversarialAccuracy,
    GradientSparsity,
    GradientTrail,
    Probe,
    SparsityOrigin,
    SurrogateSaturation,
    SynapticOperations,
    VulnerabilityRatio,
)
from snn_sparsity.training import OrthogonalRetraction
from snn_sparsity.training.sync_batchnorm import MultiStepSyncBatchNorm
from snn_sparsity.validation import InputError
from tests.tiny import TinyDataModule, TinyNetwork

GLOBAL_BATCH = 12


def every_probe():
    return [
        AdversarialAccuracy(attack=FGSM(), space="spikes", batch_norm="batch", name="fgsm", max_samples=None),
        AdversarialAccuracy(attack=PGD(steps=2), space="spikes", batch_norm="batch", name="pgd", max_samples=20),
        AdversarialAccuracy(attack=PGD(steps=2), space="spikes", name="strict"),
        AdversarialAccuracy(attack=CodeBookAscent(steps=1), name="codebook", max_samples=16),
        GradientSparsity(),
        GradientSparsity(at="adversarial", attack=PGD(steps=1), name="adversarial"),
        GradientSparsity(batch_norm="batch", name="batch"),
        SparsityOrigin(),
        SurrogateSaturation(),
        GradientTrail(),
        VulnerabilityRatio(draws=2, max_samples=16),
        SynapticOperations(max_samples=9),
        Places(max_samples=None),
    ]


def few_probes():
    return [AdversarialAccuracy(attack=FGSM(), space="spikes", batch_norm="batch", name="fgsm"), GradientSparsity(), Places()]


@dataclass(kw_only=True, eq=False)
class Places(Probe):
    """Logs how many images were measured, and numbers drawn for each batch."""

    def measure(self, context, batch):
        draws = torch.rand(len(batch.labels), generator=context.generator)
        return {"draws": draws, "first": torch.tensor(float(context.first)), "count": torch.ones(len(batch.labels))}

    def summarise(self, values):
        return {"draws": values["draws"].mean(), "first": values["first"].mean(), "count": values["count"].sum()}


@dataclass(kw_only=True, eq=False)
class Fails(AdversarialAccuracy):
    """Fails on the second batch of the set, before or after it has shared its drift with the others."""

    error: Exception
    late: bool = False

    def measure(self, context, batch):
        values = super().measure(context, batch) if self.late or context.first != 8 else {}
        if context.first == 8:
            raise self.error
        return values


@dataclass(kw_only=True, eq=False)
class RefusesTheSecondBatch(Probe):
    """A user's probe that takes offence at the second batch of the set."""

    def measure(self, context, batch):
        if context.first == 8:
            raise InputError("not these images")
        return {}


class FirstRefuses(Callback):
    """The first process finds that it may not go on."""

    def setup(self, trainer, pl_module, stage):
        first_alone(trainer, self.refuse)

    def refuse(self):
        raise InputError("no room")


class Losses(Callback):
    """Keeps the loss of each step."""

    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, trainer, classifier, outputs, batch, batch_idx):
        self.steps.append(float(trainer.callback_metrics["train/loss_step"]))


class Plain(LightningModule):
    """A network of plain images, which knows nothing of spikes or of this package."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3))

    def forward(self, images):
        return self.layers(images)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    validation_step = test_step = training_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def data(processes, **given):
    settings = {"validation": "test", "train_images": 60, "test_images": 37, "eval_batch_size": 8, "seed": 5, "encoder": PhaseEncoder(4)}
    return TinyDataModule(**settings | {"batch_size": GLOBAL_BATCH // processes} | given)


def classifier(objective=None):
    torch.manual_seed(0)
    return SpikingClassifier(TinyNetwork(), objective=objective)


class Job:
    def __init__(self, folder, processes):
        self.processes = processes
        self.options = {
            "default_root_dir": folder, "accelerator": "cpu", "devices": processes, "strategy": "ddp" if processes > 1 else "auto",
            "logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False,
        }  # fmt: skip

    def fit(self):
        """Twenty steps, with probes after the last; then ``validate`` with the same weights."""
        network, losses, probes = classifier(), Losses(), few_probes()
        for probe in probes:
            probe.every_n_epochs = 4
        trainer = Trainer(max_epochs=4, callbacks=[*probes, losses], plugins=[MultiStepSyncBatchNorm()], **self.options)
        trainer.fit(network, datamodule=data(self.processes))
        return {
            "losses": losses.steps,
            "metrics": numbers(trainer.callback_metrics),
            "weights": {name: value.clone() for name, value in network.state_dict().items()},
            "validate": self.evaluate(network, probes=few_probes),
        }

    def defended(self):
        """Losses and weights of eight steps of each objective whose attacks draw nothing, with rows drawn after each step."""
        found = {}
        for objective in (AdversarialTraining(share=0.5), SparseGradient(weight=0.1, attack=FGSM()), SharedNoise()):
            network, losses = classifier(objective), Losses()
            trainer = Trainer(
                max_steps=8, limit_val_batches=0, callbacks=[OrthogonalRetraction(large=4), losses],
                plugins=[MultiStepSyncBatchNorm()], **self.options,
            )  # fmt: skip
            trainer.fit(network, datamodule=data(self.processes, encoder=DirectEncoder(4), crop=2))
            found[type(objective).__name__] = losses.steps, {name: value.clone() for name, value in network.state_dict().items()}
        return found

    def evaluate(self, network, command="validate", probes=every_probe, **given):
        trainer = Trainer(callbacks=probes(), **self.options)
        return numbers(getattr(trainer, command)(network, datamodule=data(self.processes, **given), verbose=False)[0])

    def plain(self):
        """A LightningModule of one's own on a loader of one's own, fitted for an epoch and tested on 37 images."""
        torch.manual_seed(0)
        images = torch.rand(37, 3, 8, 8)
        pairs = DataLoader(TensorDataset(images, images.mean((2, 3)).argmax(1)), 8)
        probes = [
            AdversarialAccuracy(attack=PGD(steps=2, random_start=False), name="pgd"),
            GradientSparsity(kinds=("conv", "linear")),
            Places(),
        ]
        trainer = Trainer(max_epochs=1, callbacks=probes, **self.options)
        trainer.fit(Plain(), pairs, pairs)
        fitted = numbers(trainer.callback_metrics)
        torch.manual_seed(0)
        return fitted, numbers(trainer.test(Plain(), pairs, verbose=False)[0])

    def failure(self, error, late=False):
        """What this process hears of an error on one process, and what it measures afterwards."""
        return self.heard([Places(), Fails(attack=FGSM(), space="spikes", batch_norm="batch", error=error, late=late)])

    def heard(self, callbacks):
        """What stops this process, if anything does."""
        try:
            Trainer(callbacks=callbacks, **self.options).validate(classifier(), datamodule=data(self.processes), verbose=False)
        except (RuntimeError, InputError) as heard:
            return type(heard).__name__, str(heard)
        return None

    def run(self):
        return {
            "fit": self.fit(),
            "defended": self.defended(),
            "validate": self.evaluate(classifier()),
            "test": self.evaluate(classifier(), "test", few_probes),
            "drawn code": self.evaluate(classifier(), probes=few_probes, encoder=RateEncoder(4)),
            # Fewer batches than processes; and a process whose only batch is a short one.
            "five images": self.evaluate(classifier(), probes=few_probes, test_images=5),
            "twelve images": self.evaluate(classifier(), probes=few_probes, test_images=12),
            "plain": self.plain(),
            "failure": self.failure(ZeroDivisionError("by nothing")),
            "late failure": self.failure(ZeroDivisionError("by nothing"), late=True),
            "mistake": self.failure(InputError("eps is wrong")),
            "refusal": self.heard([FirstRefuses()]),
        }


def numbers(metrics):
    return {name: float(value) for name, value in metrics.items() if not name.startswith("time/")}


if __name__ == "__main__":
    job = Job(sys.argv[1], int(sys.argv[2]))
    result = job.run()
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    torch.save(result, Path(sys.argv[1]) / f"{rank}.pt")

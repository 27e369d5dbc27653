"""The same work done by this project, and what only it does: probes, and how cost grows."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from lightning import Callback, Trainer
from torch import nn

from benchmarks.floors import convolutions, copy
from benchmarks.work import EPS, STEP_LENGTH, STEPS, Work, wear
from snn_sparsity.attacks import FGSM, PGD, CodeBookAscent
from snn_sparsity.attacks.targets import SpikeTarget
from snn_sparsity.batch import SpikeBatch
from snn_sparsity.classifier import SpikingClassifier
from snn_sparsity.data.base import SpikeDataModule
from snn_sparsity.data.images import ImageSet, Splits
from snn_sparsity.data.loader import EpochLoader, RawBatch
from snn_sparsity.distributed import Meeting
from snn_sparsity.encoders import PhaseEncoder
from snn_sparsity.networks import SEWResNet
from snn_sparsity.probes import AdversarialAccuracy, GradientSparsity, Probe, ProbeContext, SparsityOrigin, SurrogateSaturation
from snn_sparsity.probes.undisturbed import undisturbed

PROBED = 48
DENSITIES = (0.02, 0.1, 0.2, 0.3, 0.4, 0.6)
Arm = Callable[[], float | None]


@dataclass(kw_only=True, eq=False)
class RandomImages(SpikeDataModule):
    """The images of some work."""

    work: Work

    @property
    def num_classes(self) -> int:
        """10."""
        return 10

    @property
    def class_names(self) -> list[str]:
        """``0`` to ``9``."""
        return [str(index) for index in range(10)]

    def load(self) -> Splits:
        """Return the images."""
        return Splits(*(ImageSet(*self.work.images(count)) for count in (self.work.epoch_train, self.work.epoch_test)))


class Stopwatch(Callback):
    """The seconds from the first training batch to the end of validation."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Start."""
        self.began = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Stop."""
        self.seconds = time.perf_counter() - self.began


class Project:
    """Train, evaluate and attack SEW-ResNet18 at the sizes of some work."""

    def __init__(self, work: Work) -> None:
        self.work = work
        torch.manual_seed(0)
        self.encoder = PhaseEncoder(num_steps=work.time_steps).to(work.device)
        self.classifier = SpikingClassifier(SEWResNet(depth=work.depth)).to(work.device)  # type: ignore[arg-type]
        self.network: nn.Module = self.classifier.network
        self.optimizer = self.classifier.configure_optimizers()

    def arms(self) -> dict[str, Arm]:
        """Return what is timed."""
        attacked, probed = self.batch(self.work.attack_batch), self.batch(PROBED)
        steps = {f"training step, batch {size}": partial(self.train_step, self.batch(size)) for size in self.work.batches}
        return {
            "input pipeline": partial(self.read, self.work.pipeline_images),
            **steps,
            "clean evaluation": partial(self.evaluate, attacked),
            "FGSM + PGD-7": partial(self.attack, attacked),
            "epoch": self.epoch,
            **{f"probe {name}": partial(self.probe, probes, probed) for name, probes in PROBES.items()},
            **self._floors(),
            **self._growth(),
        }

    def _floors(self) -> dict[str, Arm]:
        spikes = self.batch(self.work.batches[0]).spikes
        return {
            "floor: convolutions, batch 16": convolutions(self.network, spikes, dense=True),
            "floor: convolutions on spikes, batch 16": convolutions(self.network, spikes),
            "floor: copy": copy(self.work.device),
            **{f"density: {density}": convolutions(self.network, spikes, density=density) for density in DENSITIES},
        }

    def _growth(self) -> dict[str, Arm]:
        """Return a training step at other sizes, and training on more images; what they need is made when they first run."""
        sizes = [
            *((f"T={steps}", {"time_steps": steps}) for steps in (5, 10, 20)),
            *((f"batch={size}", {"batches": (size,)}) for size in (8, 16, 32)),
            *((f"depth={depth}", {"depth": depth}) for depth in (18, 34, 50)),
        ]
        arms: dict[str, Arm] = {f"growth: {name}": partial(_step_at, replace(self.work, **change)) for name, change in sizes}
        return arms | {f"growth: images={count}": partial(self.train_on, count) for count in (32, 64, 128)}

    def wear(self) -> None:
        """Bring weights and optimiser to where L2 decay takes them in an epoch."""
        self.train_step(self.batch(self.work.batches[0]))
        wear(self.network, self.optimizer)

    def train_step(self, batch: SpikeBatch) -> None:
        """Train on a batch."""
        self.classifier.train()
        self.optimizer.zero_grad()
        F.cross_entropy(self.classifier(batch.spikes), batch.labels).backward()
        self.optimizer.step()

    def evaluate(self, batch: SpikeBatch) -> None:
        """Count correct predictions."""
        self.classifier.eval()
        with torch.no_grad():
            (self.classifier(batch.spikes).argmax(1) == batch.labels).sum().item()

    def attack(self, batch: SpikeBatch) -> None:
        """Attack with FGSM and with PGD-7, and judge both."""
        target, x = SpikeTarget(self.classifier, "batch"), batch.spikes.transpose(0, 1).contiguous()
        for attack in (FGSM(eps=EPS), PGD(eps=EPS, alpha=STEP_LENGTH, steps=STEPS, keep="last")):
            target.judge(attack(target, x, batch.labels, torch.Generator().manual_seed(0))).argmax(1)

    def train_on(self, count: int) -> None:
        """Train on so many images once."""
        for batch in self._batches(count):
            self.train_step(batch)

    def epoch(self) -> float:
        """Train on all images, then evaluate and attack the test images; return the seconds from the first batch to the end."""
        stopwatch = Stopwatch()
        data = RandomImages(work=self.work, batch_size=self.work.batches[0], validation="test")
        # The optimiser at hand, which may be a worn one.
        self.classifier.configure_optimizers = lambda: self.optimizer  # type: ignore[method-assign]
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
        probes = [paper_attack("fgsm"), paper_attack("pgd")]
        trainer = Trainer(
            max_epochs=1, num_sanity_val_steps=0, accelerator=self.work.device, devices=1, callbacks=[*probes, stopwatch], **quiet
        )
        trainer.fit(self.classifier, datamodule=data)
        self.classifier.to(self.work.device)
        return stopwatch.seconds

    def probe(self, probes: Sequence[Probe], batch: SpikeBatch) -> None:
        """Measure what these probes measure of a batch."""
        with undisturbed(self.classifier):
            for probe in probes:
                generator = torch.Generator().manual_seed(0)
                probe.measure(ProbeContext(self.classifier, self.encoder, generator, 0, tuple(probes), Meeting(), 0), batch.clone())

    def read(self, count: int) -> None:
        """Load and encode images."""
        for _ in self._batches(count):
            pass

    def _batches(self, count: int) -> Iterator[SpikeBatch]:
        data = RandomImages(work=self.work, encoder=self.encoder)
        for raw in EpochLoader(ImageSet(*self.work.images(count)), self.work.batches[0], seed=0, train=True):
            on_device = (part.to(self.work.device) for part in raw[:3])
            yield data.on_after_batch_transfer(RawBatch(*on_device, raw.seed, raw.shift), 0)

    def batch(self, size: int) -> SpikeBatch:
        """Return an encoded batch."""
        images, labels = (tensor.to(self.work.device) for tensor in self.work.images(size))
        return SpikeBatch(self.encoder(images), labels, images)


@cache
def _project(work: Work) -> Project:
    return Project(work)


def _step_at(work: Work) -> None:
    project = _project(work)
    project.train_step(project.batch(work.batches[0]))


def paper_attack(name: str) -> AdversarialAccuracy:
    """Return a probe of the paper's protocol."""
    attack = FGSM(eps=EPS) if name == "fgsm" else PGD(eps=EPS, alpha=STEP_LENGTH, steps=STEPS, keep="last")
    return AdversarialAccuracy(attack=attack, space="spikes", batch_norm="batch", max_samples=None, name=name)


PROBES: dict[str, list[Probe]] = {
    "sparsity": [GradientSparsity()],
    "origin": [SparsityOrigin()],
    "surrogate": [SurrogateSaturation()],
    "sparsity, origin and surrogate": [GradientSparsity(), SparsityOrigin(), SurrogateSaturation()],
    "fgsm": [paper_attack("fgsm")],
    "pgd": [paper_attack("pgd")],
    "codebook": [AdversarialAccuracy(attack=CodeBookAscent(), name="codebook")],
}

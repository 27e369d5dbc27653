"""The contract between a training step and what it minimises."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from snn_sparsity.attacks.base import Attack, Passes
from snn_sparsity.attacks.lattice import lattice_radius
from snn_sparsity.attacks.targets import ImageTarget, SpikeTarget
from snn_sparsity.batch import SpikeBatch
from snn_sparsity.encoders import Encoder
from snn_sparsity.protocols import Space
from snn_sparsity.randomness import mix, stream
from snn_sparsity.validation import InputError

CHOICE, CRAFT, CODE = range(3)
"""Purposes of random numbers, so that two of them never share a stream."""


class Outcome(NamedTuple):
    """What an objective makes of a training step.

    Attributes:
        loss: [], to be minimised.
        logged: Other numbers to log, each [], as ``train/<name>``.
    """

    loss: Tensor
    logged: dict[str, Tensor] = {}  # noqa: RUF012  # never written to


class TrainingStep(NamedTuple):
    """What an objective may look at, and the random numbers of this step: they depend on its key alone.

    Attributes:
        classifier: Maps spikes [T,N,C,H,W] to logits [N,K]; in training mode, as it is to be trained.
        batch: This process's images.
        encoder: The spike code of the data; None for a foreign datamodule.
        key: (seed, epoch), for random numbers.
        number: The batch's number in its epoch.
        rank: This process.
        world_size: Number of processes.
        derivative: What holds while a pass that is trained runs forward: a backward rule, or nothing.
    """

    classifier: nn.Module
    batch: SpikeBatch
    encoder: Encoder | None = None
    key: tuple[int, ...] = (0,)
    number: int = 0
    rank: int = 0
    world_size: int = 1
    derivative: Callable[[], AbstractContextManager[None]] = nullcontext

    @property
    def images(self) -> Tensor:
        """[N,C,H,W] in [0,1], in the precision of the spikes."""
        return self.batch.images.to(self.batch.spikes.dtype) / 255

    def logits(self, spikes: Tensor) -> Tensor:
        """Return the logits [N,K] of a pass that is trained."""
        with self.derivative():
            logits: Tensor = self.classifier(spikes)
        return logits

    def generator(self, purpose: int) -> torch.Generator:
        """Return fresh random numbers of this process."""
        return stream(*self.key, self.number, purpose, self.rank)

    def draw(self, purpose: int) -> float:
        """Return a number uniform in [0,1), the same on all processes."""
        return torch.rand((), generator=stream(mix(*self.key, self.number, purpose))).item()

    def first(self, share: float) -> Tensor:
        """Return [N] bool, which images are among the first ``share`` of the batch of all processes together."""
        places = torch.arange(len(self.batch.labels), device=self.batch.labels.device) * self.world_size + self.rank
        return places < round(share * len(places) * self.world_size)

    def shown(self, x: Tensor) -> Tensor:
        """Return what the network sees of images [N,C,H,W], as [T,N,C,H,W], with a gradient back to them.

        Under a code that shows the value itself, x may be anything; under others it is clipped to [0,1] and put on the 8-bit lattice,
        and the gradient is that of :class:`~snn_sparsity.attacks.targets.ImageTarget`.
        """
        encoder = self._encoder()
        if encoder.shows_values:
            return x.expand(encoder.num_steps, *x.shape)
        return self.target("image").encode(x.clamp(0, 1)).transpose(0, 1)  # type: ignore[union-attr]  # an ImageTarget: it was asked for

    def target(self, space: Space) -> SpikeTarget | ImageTarget:
        """Return the classifier as something to attack: BatchNorm in eval mode, no weight gradient."""
        if space == "spikes":
            return SpikeTarget(self.classifier)
        return ImageTarget(self.classifier, self._encoder(), generator=self.generator(CODE))

    def radius(self, eps: float) -> float:
        """Return the radius of a ball of images: a code that shows 8-bit images needs whole grey levels.

        Raises:
            InputError: If eps is no such number.
        """
        return eps if self._encoder().shows_values else lattice_radius(eps)

    def attacked(self, attack: Attack, space: Space, chosen: Tensor) -> Tensor:
        """Return the batch's spikes [T,N,C,H,W], those of the chosen images [N] under attack."""
        x = self.images if space == "image" else self.batch.spikes.transpose(0, 1)
        x = x.clone()
        if chosen.any():
            attack = replace(attack, eps=self.radius(attack.eps)) if space == "image" else attack
            x[chosen] = attack(self.target(space), x[chosen], self.batch.labels[chosen], self.generator(CRAFT))
        return self.shown(x).detach() if space == "image" else x.transpose(0, 1)

    def _encoder(self) -> Encoder:
        if self.encoder is None:
            raise InputError("model.objective: images are changed, which needs a datamodule with an encoder (SpikeDataModule)")
        return self.encoder


@dataclass(frozen=True)
class Objective(ABC):
    """What a training step minimises: ``objective(step) -> Outcome``.

    Attacks see the network in eval mode and leave it as it was; every forward pass that is trained runs in training mode.
    """

    replays: int = field(default=1, init=False, repr=False)
    """Training steps that each batch is shown in a row."""

    @abstractmethod
    def __call__(self, step: TrainingStep) -> Outcome:
        """Return the loss of a step."""

    @property
    @abstractmethod
    def passes(self) -> Passes:
        """Forward and backward passes a batch, in passes of all time steps; plain training has one of each. At most, where it varies."""

    def __str__(self) -> str:
        """Return its name and the settings that are not the default."""
        return repr(self)

"""What an attacker may change, an object a threat model: what is attacked, what counts as a legal input, and which attacks make sense."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from snn_sparsity.attacks import Noise
from snn_sparsity.attacks.base import project, random_levels, uniform_noise
from snn_sparsity.attacks.targets import ImageTarget, SpikeTarget
from snn_sparsity.audit.collect.battery import Battery, Budget, Facts
from snn_sparsity.audit.collect.subject import Subject
from snn_sparsity.protocols import BatchNormMode, Space

AttackTarget = SpikeTarget | ImageTarget


@dataclass(frozen=True)
class ThreatModel(ABC):
    """What an attacker may change, and how BatchNorm behaves meanwhile.

    Args:
        name: Which; it keys the random numbers.
        what: In words.
        batch_norm: How BatchNorm behaves while an attack is crafted.
    """

    name: str
    what: str
    batch_norm: BatchNormMode = "eval"
    space: ClassVar[Space]

    @property
    def drifts(self) -> bool:
        """Whether BatchNorm's statistics move from batch to batch, so that each batch depends on those before it."""
        return self.batch_norm == "batch"

    @abstractmethod
    def target(self, subject: Subject, generator: torch.Generator) -> AttackTarget:
        """Return what an attack sees; a stochastic code draws from the generator."""

    @abstractmethod
    def inputs(self, subject: Subject, places: list[int], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the clean inputs of the target, [N,C,H,W] or [N,T,C,H,W], and their labels."""

    @abstractmethod
    def battery(self, budget: Budget, eps: float, facts: Facts) -> Battery:
        """Return the attacks."""

    @abstractmethod
    def noise(self, eps: float, draws: int) -> Noise:
        """Return random legal changes as an attack."""

    @abstractmethod
    def inside(self, x: Tensor, eps: float, generator: torch.Generator) -> Tensor:
        """Draw a legal point of each input's ball."""

    @abstractmethod
    def settled(self, x_adv: Tensor) -> Tensor:
        """Return what is judged of what an attack returned."""

    @abstractmethod
    def every_look_counts(self, subject: Subject) -> bool:
        """Return whether each input that an attack looked at is legal, and one look at it decides."""

    @abstractmethod
    def legality(self, subject: Subject, target: AttackTarget, x_adv: Tensor, labels: Tensor) -> dict[str, Any]:
        """Return whether attacked inputs could occur."""


class Pixels(ThreatModel):
    """Pixels are changed, the same change at every time step; what is judged is an 8-bit image."""

    space = "image"

    def target(self, subject: Subject, generator: torch.Generator) -> AttackTarget:
        """Return the classifier behind its code."""
        return ImageTarget(subject.classifier, subject.encoder, self.batch_norm, generator)

    def inputs(self, subject: Subject, places: list[int], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return images [N,C,H,W] in [0,1]."""
        images, labels = subject.select(places)
        return images.float() / 255, labels

    def battery(self, budget: Budget, eps: float, facts: Facts) -> Battery:
        """Return attacks on pixels: code-book ascent where the code is no straight line."""
        return Battery(True, budget, eps, facts)

    def noise(self, eps: float, draws: int) -> Noise:
        """Return whole grey levels of noise."""
        return Noise(eps=eps, draws=draws, kind="levels")

    def inside(self, x: Tensor, eps: float, generator: torch.Generator) -> Tensor:
        """Draw 8-bit images."""
        radius = int(eps * 255) / 255
        return project(x + random_levels(x, radius, generator), x, radius, (0.0, 1.0))

    def settled(self, x_adv: Tensor) -> Tensor:
        """Round to grey levels; the radius is a whole number of them, so that rounding does not leave the ball."""
        return (x_adv * 255).round() / 255

    def every_look_counts(self, subject: Subject) -> bool:
        """No: an image is legal only once it is rounded."""
        return False

    def legality(self, subject: Subject, target: AttackTarget, x_adv: Tensor, labels: Tensor) -> dict[str, Any]:
        """Return whether the images are in the bounds and on the 8-bit lattice."""
        return {"in_bounds": _in_bounds(target, x_adv), "on_lattice": bool(torch.equal(self.settled(x_adv), x_adv))}


class Spikes(ThreatModel):
    """Encoded spikes are changed by real numbers, each time step by itself."""

    space = "spikes"

    def target(self, subject: Subject, generator: torch.Generator) -> AttackTarget:
        """Return the classifier without its code."""
        return SpikeTarget(subject.classifier, self.batch_norm)

    def inputs(self, subject: Subject, places: list[int], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return spikes [N,T,C,H,W]."""
        images, labels = subject.select(places)
        return subject.encoder(images, generator).transpose(0, 1).contiguous(), labels

    def battery(self, budget: Budget, eps: float, facts: Facts) -> Battery:
        """Return attacks on spikes."""
        return Battery(False, budget, eps, facts)

    def noise(self, eps: float, draws: int) -> Noise:
        """Return uniform noise."""
        return Noise(eps=eps, draws=draws, kind="uniform")

    def inside(self, x: Tensor, eps: float, generator: torch.Generator) -> Tensor:
        """Draw spikes by real numbers."""
        return project(x + uniform_noise(x, eps, generator), x, eps, (0.0, 1.0))

    def settled(self, x_adv: Tensor) -> Tensor:
        """Return it as it is."""
        return x_adv

    def every_look_counts(self, subject: Subject) -> bool:
        """Return whether the network is no random one, and judged as it is attacked."""
        return not self.drifts and not subject.random

    def legality(self, subject: Subject, target: AttackTarget, x_adv: Tensor, labels: Tensor) -> dict[str, Any]:
        """Return whether the spikes are in the bounds, which are the code of an image, and which are right once rounded to 0 and 1."""
        found = {"in_bounds": _in_bounds(target, x_adv), "realisable": realisable(x_adv, subject.encoder)}
        book = getattr(subject.encoder, "code_book", torch.zeros(1))
        if not torch.equal(book.round(), book):
            return found
        right = subject.judge(target, x_adv.round()).argmax(1) == labels
        return found | {"right_rounded": right.tolist()}


def realisable(spikes: Tensor, encoder: nn.Module) -> list[bool]:
    """Return of each spike train [N,T,C,H,W] whether some 8-bit image has exactly this code."""
    book = getattr(encoder, "code_book", None)
    if book is None:
        return ((spikes == 0) | (spikes == 1)).flatten(1).all(1).tolist()
    book = book.to(spikes.device)
    codes = spikes.flatten(2).movedim(1, -1)
    return [bool((sample.unsqueeze(1) == book).all(-1).any(1).all()) for sample in codes]


def _in_bounds(target: AttackTarget, x_adv: Tensor) -> bool:
    return bool(x_adv.min() >= target.bounds[0] and x_adv.max() <= target.bounds[1])


PIXELS = Pixels("image", "pixels, the same change at every time step; BatchNorm in eval mode")
SPIKES = Spikes("spikes", "encoded spikes, by real numbers, each time step by itself; BatchNorm in eval mode")
PAPER = Spikes("paper", "encoded spikes; BatchNorm takes the batch's statistics while the attack is crafted", "batch")
THREAT_MODELS: dict[str, ThreatModel] = {one.name: one for one in (PIXELS, SPIKES, PAPER)}

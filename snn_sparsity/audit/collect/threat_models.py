"""What an attacker may change, an object a threat model: what is attacked, what counts as a legal input, and which attacks make sense."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from snn_sparsity.attacks import Attack, Noise, RandomFlips, SpikeFlips
from snn_sparsity.attacks.base import correct, project, random_corners, uniform_noise
from snn_sparsity.attacks.flips import FlipAttack, flipped, random_places
from snn_sparsity.attacks.lattice import random_levels
from snn_sparsity.attacks.targets import ImageTarget, SpikeTarget, StepwiseTarget
from snn_sparsity.audit.collect.battery import Battery, Budget, Facts, FlipBattery, quoted
from snn_sparsity.audit.collect.subject import Subject
from snn_sparsity.audit.evidence import Perturbation
from snn_sparsity.protocols import BatchNormMode, Space

AttackTarget = SpikeTarget | ImageTarget


@dataclass(frozen=True)
class ThreatModel(ABC):
    """What an attacker may change, and how BatchNorm behaves meanwhile.

    Args:
        name: Which; it keys the random numbers.
        what: In words.
        batch_norm: How BatchNorm behaves while an attack is crafted.

    Attributes:
        space: Whether pixels or spikes are changed.
        perturbation: Whether a change is measured by its largest entry or by the number of flips.
    """

    name: str
    what: str
    batch_norm: BatchNormMode = "eval"
    space: ClassVar[Space]
    perturbation: ClassVar[Perturbation] = "linf"

    @property
    def drifts(self) -> bool:
        """Whether BatchNorm's statistics move from batch to batch, so that each batch depends on those before it."""
        return self.batch_norm == "batch"

    def refuses(self, subject: Subject) -> str:
        """Return why this makes no sense for a subject; empty where it does."""
        return ""

    def quoted(self, claim: Attack, eps: float) -> Attack:
        """Return the quoted attack: the claim, unless it is of another threat model."""
        return quoted(eps) if isinstance(claim, FlipAttack) else claim

    def distance(self, x_adv: Tensor, x: Tensor) -> float:
        """Return how far attacked inputs are, in the unit of the radius."""
        return (x_adv - x).abs().max().item()

    @abstractmethod
    def target(self, subject: Subject, generator: torch.Generator) -> AttackTarget:
        """Return what an attack sees; a stochastic code draws from the generator."""

    @abstractmethod
    def inputs(self, subject: Subject, places: list[int]) -> tuple[Tensor, Tensor]:
        """Return the clean inputs of the target, [N,C,H,W] or [N,T,C,H,W], and their labels."""

    @abstractmethod
    def battery(self, budget: Budget, eps: float, facts: Facts) -> Battery:
        """Return the attacks."""

    def corner(self, x: Tensor, eps: float, generator: torch.Generator) -> Tensor:
        """Draw a point at the rim of each input's ball."""
        return project(x + random_corners(x, eps, generator), x, eps, (0.0, 1.0))

    @abstractmethod
    def noise(self, eps: float, draws: int) -> Attack:
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
    def legality(self, subject: Subject, target: AttackTarget, x_adv: Tensor, places: list[int]) -> dict[str, Any]:
        """Return whether attacked inputs could occur."""


class Pixels(ThreatModel):
    """Pixels are changed, the same change at every time step; what is judged is an 8-bit image."""

    space = "image"

    def target(self, subject: Subject, generator: torch.Generator) -> AttackTarget:
        """Return the classifier behind its code."""
        return ImageTarget(subject.classifier, subject.encoder, self.batch_norm, generator)

    def inputs(self, subject: Subject, places: list[int]) -> tuple[Tensor, Tensor]:
        """Return images [N,C,H,W] in [0,1]."""
        images, labels = subject.select(places)
        return images.float() / 255, labels

    def battery(self, budget: Budget, eps: float, facts: Facts) -> Battery:
        """Return attacks on pixels: code-book ascent where the code is no straight line."""
        return Battery(True, budget, eps, facts)

    def noise(self, eps: float, draws: int) -> Attack:
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

    def legality(self, subject: Subject, target: AttackTarget, x_adv: Tensor, places: list[int]) -> dict[str, Any]:
        """Return whether the images are in the bounds and on the 8-bit lattice."""
        return {"in_bounds": _in_bounds(target, x_adv), "on_lattice": bool(torch.equal(self.settled(x_adv), x_adv))}


class PixelsByStep(Pixels):
    """Pixels are changed, at each time step by another change: the code of step t is that of image t."""

    def refuses(self, subject: Subject) -> str:
        """Return why not, for a network of one time step."""
        return "" if subject.encoder.num_steps > 1 else "there is one time step only: it is the image protocol"

    def target(self, subject: Subject, generator: torch.Generator) -> AttackTarget:
        """Return the classifier behind its code, step by step."""
        return StepwiseTarget(subject.classifier, subject.encoder, self.batch_norm, generator)

    def inputs(self, subject: Subject, places: list[int]) -> tuple[Tensor, Tensor]:
        """Return images [N,T,C,H,W] in [0,1], at first the same at every step."""
        images, labels = super().inputs(subject, places)
        return images.unsqueeze(1).repeat(1, subject.encoder.num_steps, 1, 1, 1), labels


class Spikes(ThreatModel):
    """Encoded spikes are changed by real numbers, each time step by itself."""

    space = "spikes"

    def refuses(self, subject: Subject) -> str:
        """Return why not, for a network that is shown the image itself."""
        shown = subject.encoder.shows_values and subject.encoder.num_steps == 1
        return "the network takes images: there are no encoded spikes to change" if shown else ""

    def target(self, subject: Subject, generator: torch.Generator) -> AttackTarget:
        """Return the classifier without its code."""
        return SpikeTarget(subject.classifier, self.batch_norm)

    def inputs(self, subject: Subject, places: list[int]) -> tuple[Tensor, Tensor]:
        """Return spikes [N,T,C,H,W]."""
        return subject.encode(places), subject.select(places)[1]

    def battery(self, budget: Budget, eps: float, facts: Facts) -> Battery:
        """Return attacks on spikes."""
        return Battery(False, budget, eps, facts)

    def noise(self, eps: float, draws: int) -> Attack:
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

    def legality(self, subject: Subject, target: AttackTarget, x_adv: Tensor, places: list[int]) -> dict[str, Any]:
        """Return whether the spikes are in the bounds, which are the code of an image, and which are right once rounded to 0 and 1."""
        found = {"in_bounds": _in_bounds(target, x_adv), "realisable": realisable(x_adv, subject.encoder)}
        book = getattr(subject.encoder, "code_book", torch.zeros(1))
        if not torch.equal(book.round(), book):
            return found
        right = correct(subject.judge(target, x_adv.round(), places), subject.select(places)[1])
        return found | {"right_rounded": right.tolist()}


@dataclass(frozen=True)
class Flips(Spikes):
    """Spikes are flipped, so that they stay spikes.

    Args:
        flips: Most of an image's spikes that may be flipped; a radius of 1 is all of these.
    """

    flips: int = 100
    perturbation = "flips"

    def refuses(self, subject: Subject) -> str:
        """Return why not, for a code that shows other values than 0 and 1."""
        if why := super().refuses(subject):
            return why
        spikes = subject.encode([0])
        return "" if ((spikes == 0) | (spikes == 1)).all() else "the code shows other values than 0 and 1, which nobody can flip"

    def quoted(self, claim: Attack, eps: float) -> Attack:
        """Return the claim if it flips, else ten steps of flips, in either case as many as are allowed."""
        return replace(claim, eps=1.0, flips=self.flips) if isinstance(claim, FlipAttack) else SpikeFlips(flips=self.flips)

    def distance(self, x_adv: Tensor, x: Tensor) -> float:
        """Return the share of the allowed flips that was used; infinite where something else than a flip happened."""
        flipped = x_adv != x
        return float("inf") if (x_adv[flipped] != 1 - x[flipped]).any() else flipped.flatten(1).sum(1).max().item() / self.flips

    def battery(self, budget: Budget, eps: float, facts: Facts) -> Battery:
        """Return attacks by flips."""
        return FlipBattery(False, budget, 1.0, facts, self.flips)

    def noise(self, eps: float, draws: int) -> Attack:
        """Return random flips."""
        return RandomFlips(flips=self.flips, queries=draws)

    def inside(self, x: Tensor, eps: float, generator: torch.Generator) -> Tensor:
        """Draw random flips."""
        return flipped(x, random_places(x, self.flips, generator))

    def corner(self, x: Tensor, eps: float, generator: torch.Generator) -> Tensor:
        """Draw random flips, as many as are allowed."""
        return self.inside(x, eps, generator)

    def legality(self, subject: Subject, target: AttackTarget, x_adv: Tensor, places: list[int]) -> dict[str, Any]:
        """Return whether the spikes are zeros and ones, and which are codes of an image."""
        return {"in_bounds": bool(((x_adv == 0) | (x_adv == 1)).all()), "realisable": realisable(x_adv, subject.encoder)}


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
STEPS = PixelsByStep("steps", "pixels, another change at each time step; BatchNorm in eval mode")
FEW_FLIPS = 0.0025
"""Share of a code's entries that may be flipped unless somebody says how many: SDA's median on CIFAR10-DVS is 0.24 % (arXiv 2503.03272)."""


def threat_models(names: Sequence[str], subject: Subject, flips: int | None = None) -> list[ThreatModel]:
    """Return the threat models of these names, for a subject.

    Args:
        names: ``image``, ``steps``, ``spikes``, ``flips`` or ``paper``.
        subject: What is audited.
        flips: Most spikes of an image that may be flipped; None is 0.25 % of the code's entries, one at least.
    """
    entries = subject.encoder.num_steps * subject.images[0].numel()
    count = min(flips or max(round(FEW_FLIPS * entries), 1), entries)
    flipping = Flips("flips", f"encoded spikes, at most {count} of {entries} flipped; BatchNorm in eval mode", flips=count)
    known: dict[str, ThreatModel] = {one.name: one for one in (PIXELS, STEPS, SPIKES, flipping, PAPER)}
    return [known[name] for name in names]

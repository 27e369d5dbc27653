"""Projected gradient descent through a code whose declared gradient grows finer."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from snn_sparsity.attacks.base import LOSSES, Attack, BestSoFar, LossName, Passes, Target, input_gradient, project, uniform_noise
from snn_sparsity.attacks.lattice import lattice_radius
from snn_sparsity.encoders.base import LEVELS
from snn_sparsity.units import Levels
from snn_sparsity.validation import InputError, require_choice, require_number


class SmoothableTarget(Target, Protocol):
    """An image target whose code declares a gradient: that of its average over nearby levels."""

    def smoothed(self, half_width: int) -> Target:
        """Return the target with another half-width of the average: the same logits, another gradient."""


@dataclass(frozen=True, kw_only=True)
class AnnealedPGD(Attack):
    """PGD on pixels through the code averaged over the levels within h, with h falling: ``x <- Pi(x + alpha sign(grad_h loss))``.

    The steps are dealt evenly to the widths. A wide average shows where the coarse bits of a code lead, a narrow one the fine bits, whose
    period divides a wide one. This is backward pass differentiable approximation (Athalye et al., arXiv 1802.00420); on a phase code
    ``CodeBookAscent``, which needs no such average, is stronger.

    Args:
        eps: Radius of the ball for images in [0,1]; a whole number of grey levels.
        alpha: Step length, above 0.
        steps: Number of gradient steps, at least one for each width.
        widths: h of each stage, in grey levels, at least 1.
        random_start: Whether to start at a uniform draw from the ball rather than at x.
        loss: ``ce``, ``margin`` or ``dlr``.

    Raises:
        InputError: For a number outside its range, or a target without ``smoothed``.

    Example:
        >>> AnnealedPGD(alpha=1 / 255, steps=10).schedule
        [8, 8, 8, 8, 4, 4, 4, 2, 2, 2]
    """

    alpha: Levels | float = Levels(0.01)
    steps: int = 50
    widths: tuple[int, ...] = (8, 4, 2)
    random_start: bool = False
    loss: LossName = "ce"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "eps", lattice_radius(self.eps))
        require_number("alpha", self.alpha, above=0, at_most=1)
        require_number("widths", len(self.widths), at_least=1)
        for width in self.widths:
            require_number("widths", width, at_least=1, whole=True)
        require_number("steps", self.steps, at_least=len(self.widths), whole=True)
        require_choice("loss", self.loss, LOSSES)

    @property
    def schedule(self) -> list[int]:
        """The width of each step."""
        return [self.widths[step * len(self.widths) // self.steps] for step in range(self.steps)]

    def __call__(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Attack images [N,C,H,W] in [0,1]; returns 8-bit images. See :meth:`Attack.__call__`."""
        if target.space != "image" or not hasattr(target, "smoothed"):
            raise InputError("AnnealedPGD needs space='image' and a target with a smoothed code (ImageTarget)")
        smooth: SmoothableTarget = target  # type: ignore[assignment]  # checked just above
        best = BestSoFar.nothing(x)
        start = x + uniform_noise(x, self.eps, generator) if self.random_start else x
        x_adv = project(start, x, self.eps, target.bounds)
        for width in self.schedule:
            gradient, logits = input_gradient(smooth.smoothed(width).logits, x_adv, labels, self.loss)
            best.update(x_adv, logits, labels)
            x_adv = project(x_adv + self.alpha * gradient.sign(), x, self.eps, target.bounds)
        with torch.no_grad():
            best.update(x_adv, target.logits(x_adv), labels)
        return (best.x * (LEVELS - 1)).round() / (LEVELS - 1)

    @property
    def passes(self) -> Passes:
        """``steps`` of each, and a look at the last iterate."""
        return Passes(self.steps + 1, self.steps)

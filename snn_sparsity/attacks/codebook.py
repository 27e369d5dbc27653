"""Code-book ascent: the image-space attack on networks whose input is a code."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from snn_sparsity.attacks.base import LOSSES, Attack, BestSoFar, LossName, Passes, Target, input_gradient, whole_levels
from snn_sparsity.checks import InputError, require_choice, require_number
from snn_sparsity.encoders.base import LEVELS, grey_levels


class CodedTarget(Target, Protocol):
    """An image target whose code works pixel by pixel."""

    @property
    def code_book(self) -> Tensor:
        """[256,T], the code of each grey level."""

    @property
    def spikes(self) -> Target:
        """The same network, seen from its spikes [N,T,C,H,W]."""


@dataclass(frozen=True, kw_only=True)
class CodeBookAscent(Attack):
    """Move each pixel to the grey level whose code the spike gradient likes best.

    With S the code book and g the gradient of the loss with respect to the spikes at levels v, level c scores
    ``sum_t g_t (S[c,t] - S[v,t])``. Each step moves the fraction q of pixels with the largest positive score; q falls
    geometrically from 1 to ``smallest_fraction``. Every iterate is an 8-bit image in the ball. On a linear functional of the
    code the first step finds the optimum. A generalisation of discrete gradient ascent (Buckman et al., ICLR 2018) from
    thermometer codes to any code book; straight-through gradients are close to random on a phase code.

    Args:
        eps: Radius of the ball for images in [0,1]; a whole number of grey levels.
        steps: Number of gradient steps, at least 1.
        smallest_fraction: q of the last step, above 0 and at most 1.
        loss: ``ce``, ``margin`` or ``dlr``.

    Raises:
        InputError: For a number outside its range, or a target that is no image behind a code book.

    Example:
        >>> CodeBookAscent(steps=50)
        CodeBookAscent(eps=0.03137254901960784, steps=50, smallest_fraction=0.03, loss='ce')
    """

    steps: int = 10
    smallest_fraction: float = 0.03
    loss: LossName = "ce"

    def __post_init__(self) -> None:
        super().__post_init__()
        whole_levels(self.eps)
        require_number("steps", self.steps, at_least=1, whole=True)
        require_number("smallest_fraction", self.smallest_fraction, above=0, at_most=1)
        require_choice("loss", self.loss, LOSSES)

    def __call__(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Attack images [N,C,H,W] in [0,1]; returns 8-bit images. See :meth:`Attack.__call__`."""
        coded = _coded(target)
        clean = grey_levels(x).long()
        levels = clean
        best = BestSoFar.nothing(clean)
        for step in range(self.steps):
            gradient, logits = input_gradient(coded.spikes.logits, _show(coded, levels), labels, self.loss)
            best.update(levels, logits, labels)
            fraction = self.smallest_fraction ** (step / max(self.steps - 1, 1))
            levels = _move(levels, *self._best_codes(gradient, coded.code_book, clean, levels), fraction)
        with torch.no_grad():
            best.update(levels, coded.spikes.logits(_show(coded, levels)), labels)
        return best.x.to(x.dtype) / (LEVELS - 1)

    @property
    def passes(self) -> Passes:
        """``steps`` of each, and a look at the last iterate."""
        return Passes(self.steps + 1, self.steps)

    def _best_codes(self, gradient: Tensor, code_book: Tensor, clean: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
        """Return each pixel's best-scoring level in the ball, and what it gains over the present one; both [N,P]."""
        score_of_level = torch.einsum("ntp,ct->ncp", gradient.flatten(2), code_book)
        radius = whole_levels(self.eps)
        offsets = torch.arange(-radius, radius + 1, device=clean.device).view(1, -1, 1)
        # Clamping only repeats the lowest or highest level: the candidates stay those of the ball.
        candidates = (clean.flatten(1).unsqueeze(1) + offsets).clamp(0, LEVELS - 1)
        score, choice = score_of_level.gather(1, candidates).max(1)
        present = score_of_level.gather(1, levels.flatten(1).unsqueeze(1)).squeeze(1)
        return candidates.gather(1, choice.unsqueeze(1)).squeeze(1), score - present


def _coded(target: Target) -> CodedTarget:
    if target.space != "image" or getattr(target, "code_book", None) is None:
        raise InputError("CodeBookAscent needs space='image' and an encoder with a code book (phase, latency or direct)")
    return target  # type: ignore[return-value]  # checked just above


def _show(target: CodedTarget, levels: Tensor) -> Tensor:
    """Return the spikes [N,T,C,H,W] of grey levels [N,C,H,W]."""
    return target.code_book[levels].movedim(-1, 1)


def _move(levels: Tensor, best_level: Tensor, gain: Tensor, fraction: float) -> Tensor:
    """Give the ``fraction`` of pixels that gain most their best level; all but ``fraction`` are [N,P] or [N,C,H,W]."""
    count = max(1, round(fraction * gain.shape[1]))
    threshold = gain.topk(count, dim=1).values[:, -1:]
    moved = (gain > 0) & (gain >= threshold)
    return torch.where(moved, best_level, levels.flatten(1)).view_as(levels)

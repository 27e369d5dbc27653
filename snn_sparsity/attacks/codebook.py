"""Code-book ascent: the image-space attack on networks whose input is a code."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from snn_sparsity.attacks.base import LOSSES, Attack, BestSoFar, LossName, Passes, Target, input_gradient, largest, project
from snn_sparsity.attacks.lattice import lattice_radius, random_levels, whole_levels
from snn_sparsity.attacks.sapgd import over_its_mean
from snn_sparsity.encoders.base import LEVELS
from snn_sparsity.validation import InputError, require_choice, require_number


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

    With S the code book, v the levels and g the gradient of the loss with respect to the spikes, ``m <- momentum m + g / mean|g|`` and
    level c scores ``sum_t m_t (S[c,t] - S[v,t])``. Each step moves the fraction q of pixels with the largest positive score; q falls
    geometrically from 1 to ``smallest_fraction``. Every iterate is an 8-bit image in the ball; the one with the largest margin is
    returned. On a linear functional of the code the first step finds the optimum.

    A generalisation of discrete gradient ascent (Buckman et al., ICLR 2018) from thermometer codes to any code book, with the momentum
    of Dong et al. (arXiv 1710.06081). Straight-through gradients are close to random on a phase code. A q that falls only where the
    loss falls, with or without going back to the best iterate, was measured to be weaker than the fixed schedule.

    Args:
        eps: Radius of the ball for images in [0,1]; a whole number of grey levels.
        steps: Number of gradient steps, at least 1.
        smallest_fraction: q of the last step, above 0 and at most 1.
        momentum: What a step keeps of the directions before it, from 0 to 1.
        random_start: Whether to start at random levels of the ball rather than at the image.
        restarts: Number of runs; the best result of each sample is kept. More than one needs ``random_start``.
        loss: ``ce``, ``margin`` or ``dlr``.

    Raises:
        InputError: For a number outside its range, or a target that is no image behind a code book.

    Example:
        >>> CodeBookAscent(steps=50).passes
        Passes(forwards=51, backwards=50)
    """

    steps: int = 10
    smallest_fraction: float = 0.03
    momentum: float = 0.9
    random_start: bool = False
    restarts: int = 1
    loss: LossName = "ce"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "eps", lattice_radius(self.eps))
        require_number("steps", self.steps, at_least=1, whole=True)
        require_number("smallest_fraction", self.smallest_fraction, above=0, at_most=1)
        require_number("momentum", self.momentum, at_least=0, at_most=1)
        require_number("restarts", self.restarts, at_least=1, whole=True)
        require_choice("loss", self.loss, LOSSES)
        if self.restarts > 1 and not self.random_start:
            raise InputError(f"restarts={self.restarts} would all do the same: give random_start=true, or restarts=1")

    def __call__(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Attack images [N,C,H,W] in [0,1], or one for each time step, [N,T,C,H,W]; returns 8-bit images. See :meth:`Attack.__call__`."""
        coded = coded_target(target)
        generator = generator or torch.Generator().manual_seed(0)
        clean = _levels(x)
        best = BestSoFar.nothing(clean)
        for _ in range(self.restarts):
            start = x + random_levels(x, self.eps, generator) if self.random_start else x
            levels = _levels(project(start, x, self.eps, target.bounds))
            spikes = spikes_of(coded.code_book, levels)
            direction = torch.zeros_like(spikes)
            for step in range(self.steps):
                gradient, logits = input_gradient(coded.spikes.logits, spikes, labels, self.loss)
                best.update(levels, logits, labels)
                direction = self.momentum * direction + over_its_mean(gradient)
                gain, wanted = best_levels(direction, coded.code_book, levels, clean, whole_levels(self.eps))
                fraction = self.smallest_fraction ** (step / max(self.steps - 1, 1))
                moved = largest(gain, max(1, round(fraction * gain.shape[1])))
                levels = torch.where(moved, wanted, levels.flatten(1)).view_as(levels)
                spikes = spikes_of(coded.code_book, levels)
            with torch.no_grad():
                best.update(levels, coded.spikes.logits(spikes), labels)
        return best.x.to(x.dtype) / (LEVELS - 1)

    @property
    def passes(self) -> Passes:
        """``restarts x steps`` of each, and a look at the last iterate of each run."""
        return Passes(self.restarts * (self.steps + 1), self.restarts * self.steps)


def coded_target(target: Target) -> CodedTarget:
    """Return the target.

    Raises:
        InputError: If it is no image behind a code book.
    """
    if target.space != "image" or getattr(target, "code_book", None) is None:
        raise InputError("CodeBookAscent needs space='image' and an encoder with a code book (phase, latency or direct)")
    return target  # type: ignore[return-value]  # checked just above


def spikes_of(code_book: Tensor, levels: Tensor) -> Tensor:
    """Return the spikes [N,T,C,H,W] of grey levels [N,C,H,W], or of levels [N,T,C,H,W], another image at each time step."""
    if levels.ndim == 5:
        return torch.stack([code_book[levels[:, step], step] for step in range(levels.shape[1])], 1)
    return code_book[levels].movedim(-1, 1)


def best_levels(direction: Tensor, code_book: Tensor, levels: Tensor, clean: Tensor, radius: int) -> tuple[Tensor, Tensor]:
    """Return what the best level within the radius gains at each pixel, and which it is, both [N,P].

    Args:
        direction: [N,T,C,H,W].
        code_book: [256,T].
        levels: Those now, [N,C,H,W], or [N,T,C,H,W]: then each time step is a problem of its own.
        clean: Those of the clean image, of the same shape.
        radius: In grey levels.
    """
    if levels.ndim == 5:
        each = [
            best_levels(direction[:, step : step + 1], code_book[:, step : step + 1], levels[:, step], clean[:, step], radius)
            for step in range(levels.shape[1])
        ]
        return torch.cat([gain for gain, _ in each], 1), torch.cat([wanted for _, wanted in each], 1)
    candidates = candidate_levels(clean, radius)
    gain, choice = score(direction, code_book, levels).gather(1, candidates).max(1)
    return gain, candidates.gather(1, choice.unsqueeze(1)).squeeze(1)


def candidate_levels(clean: Tensor, radius: int) -> Tensor:
    """Return the levels within ``radius`` of each pixel, [N, 2 radius + 1, P] with P = C x H x W; 0 and 255 repeat where it ends.

    Where the radius covers all levels they are just these, [N,256,P].
    """
    if radius >= LEVELS - 1:
        return torch.arange(LEVELS, device=clean.device).view(1, -1, 1).expand(len(clean), -1, clean[0].numel())
    offsets = torch.arange(-radius, radius + 1, device=clean.device).view(1, -1, 1)
    return (clean.flatten(1).unsqueeze(1) + offsets).clamp(0, LEVELS - 1)


def score(direction: Tensor, code_book: Tensor, levels: Tensor) -> Tensor:
    """Return what each level would add in the direction, ``sum_t d_t (S[c,t] - S[v,t])``.

    Args:
        direction: d, [N,T,C,H,W]; with a gradient of the loss, the result is the predicted change of the loss.
        code_book: S, [256,T].
        levels: v, [N,C,H,W].

    Returns:
        [N,256,P], one row for each level c.

    Example:
        One pixel at level 2, two bits, and a loss that likes the lower one.

        >>> book = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
        >>> score(torch.tensor([3.0, 5.0]).view(1, 2, 1, 1, 1), book, torch.tensor([[[[2]]]])).flatten().tolist()
        [-3.0, 2.0, 0.0, 5.0]
    """
    value = torch.einsum("ntp,ct->ncp", direction.flatten(2), code_book)
    return value - value.gather(1, levels.flatten(1).unsqueeze(1))


def _levels(x: Tensor) -> Tensor:
    return (x.detach() * (LEVELS - 1)).round().long()

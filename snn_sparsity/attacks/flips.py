"""Attacks that flip spikes: what they return is a spike train of zeros and ones again."""

from dataclasses import dataclass

import torch
from torch import Tensor

from snn_sparsity.attacks.base import LOSSES, Attack, BestSoFar, LossName, Passes, Target, beside, input_gradient, largest
from snn_sparsity.attacks.sapgd import over_its_mean
from snn_sparsity.units import Levels
from snn_sparsity.validation import InputError, require_choice, require_number


@dataclass(frozen=True, kw_only=True)
class FlipAttack(Attack):
    """An attack with a number of flips for a budget: an entry of a spike train goes from 0 to 1, or from 1 to 0.

    Args:
        eps: A flip moves an entry by 1: below 1 none is allowed, and x comes back.
        flips: Most entries of a sample that may be flipped, at least 1.
    """

    eps: Levels | float = 1.0
    flips: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("flips", self.flips, at_least=1, whole=True)

    def allowed(self, target: Target, x: Tensor) -> int:
        """Return how many entries of a sample may be flipped.

        Raises:
            InputError: For inputs that are no spike trains of zeros and ones.
        """
        if target.space != "spikes":
            raise InputError(f"{type(self).__name__} flips spikes: it needs space='spikes'")
        if not ((x == 0) | (x == 1)).all():
            raise InputError(f"{type(self).__name__} flips zeros and ones: this code shows other values too")
        return min(self.flips, x.shape[1:].numel()) if self.eps >= 1 else 0


@dataclass(frozen=True, kw_only=True)
class SpikeFlips(FlipAttack):
    """Flip the spikes that the gradient likes flipped best, more at each step, up to a budget.

    With g the gradient, x the clean spikes and ``s = g (1 - 2 x)``, what a flip of each entry is worth to first order,
    ``m <- momentum m + s / mean|s|``; step k of K flips the ``ceil(flips k / K)`` entries of x with the largest m above 0. What was
    flipped before may go back. The iterate with the largest margin is returned; every one is a spike train within the budget. On a linear
    functional of the spikes the last step finds the optimum.

    The threat model is that of SDA (Lun et al., CVPR 2025, arXiv 2503.03272), which looks for few flips; this looks for the best ones
    within a given number.

    Args:
        eps: 1; below it nothing may be flipped.
        flips: Most entries of a sample that may be flipped, at least 1.
        steps: K, at least 1.
        momentum: What a step keeps of the scores before it, from 0 to 1.
        random_start: Whether to start with as many random flips as the first step makes rather than at x.
        loss: ``ce``, ``margin`` or ``dlr``.

    Raises:
        InputError: For a number outside its range; in a call, for inputs that are no spike trains of zeros and ones.

    Example:
        Three spikes of a linear model: flipping the second gains most, the third would lose.

        >>> from types import SimpleNamespace
        >>> weights = torch.tensor([[0.0, 0.0, 0.0], [1.0, -3.0, 2.0]])
        >>> target = SimpleNamespace(space="spikes", bounds=(0.0, 1.0), logits=lambda x: x @ weights.T)
        >>> SpikeFlips(flips=1)(target, torch.tensor([[0.0, 1.0, 1.0]]), torch.tensor([0])).tolist()
        [[0.0, 0.0, 1.0]]
    """

    steps: int = 10
    momentum: float = 0.5
    random_start: bool = False
    loss: LossName = "margin"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("steps", self.steps, at_least=1, whole=True)
        require_number("momentum", self.momentum, at_least=0, at_most=1)
        require_choice("loss", self.loss, LOSSES)

    def __call__(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Attack spikes [N,T,C,H,W] of 0 and 1. See :meth:`Attack.__call__`."""
        allowed = self.allowed(target, x)
        best, worth = BestSoFar.nothing(x), torch.zeros_like(x)
        spikes = flipped(x, random_places(x, -(-allowed // self.steps), generator)) if self.random_start else x
        for step in range(1, self.steps + 1):
            gradient, logits = input_gradient(target.logits, spikes, labels, self.loss)
            best.update(spikes, logits, labels)
            worth = self.momentum * worth + over_its_mean(gradient * (1 - 2 * x))
            spikes = flipped(x, largest(worth, -(-allowed * step // self.steps)))
        with torch.no_grad():
            best.update(spikes, target.logits(spikes), labels)
        return best.x

    @property
    def passes(self) -> Passes:
        """``steps`` of each, and a look at the last iterate."""
        return Passes(self.steps + 1, self.steps)


@dataclass(frozen=True, kw_only=True)
class RandomFlips(FlipAttack):
    """Sparse-RS on spikes: random flips, of which a shrinking share is drawn anew, kept where the margin rises (arXiv 2006.12834).

    No gradient. Query k exchanges ``ceil(flips share / (1 + 7 k / queries))`` flips for others, at random; a sample keeps its flips unless
    the exchange raises its margin. Samples already fooled leave the batch. The published schedule of shares has steps; this one is ours.

    Args:
        eps: 1; below it nothing may be flipped.
        flips: How many entries of a sample are flipped, at least 1.
        queries: Number of looks, at least 1.
        share: Of the flips, how many the first exchange draws anew, above 0 and at most 1.

    Raises:
        InputError: For a number outside its range; in a call, for inputs that are no spike trains of zeros and ones.

    Example:
        >>> RandomFlips(flips=50, queries=200).passes
        Passes(forwards=200, backwards=0)
    """

    queries: int = 1000
    share: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("queries", self.queries, at_least=1, whole=True)
        require_number("share", self.share, above=0, at_most=1)

    def __call__(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Attack spikes [N,T,C,H,W] of 0 and 1. See :meth:`Attack.__call__`."""
        allowed = self.allowed(target, x)
        generator = generator or torch.Generator().manual_seed(0)
        best, places = BestSoFar.nothing(x), random_places(x, allowed, generator)
        with torch.no_grad():
            for query in range(self.queries):
                left = (best.margin <= 0).nonzero().squeeze(1)
                if not len(left):
                    break
                anew = -(-allowed * self.share // (1 + 7 * query / self.queries)) if query else 0
                # Drawn for those too that have left: what an image gets must not depend on how its neighbours fare.
                draws = torch.rand(x.shape, generator=generator, device=generator.device).to(x.device)
                tried = exchanged(places[left], min(int(anew), allowed), draws[left])
                mine = BestSoFar(best.x[left], best.margin[left])
                before = mine.margin
                mine.update(flipped(x[left], tried), target.logits(flipped(x[left], tried)), labels[left])
                places[left] = torch.where(beside(mine.margin > before, x), tried, places[left])
                best.x[left], best.margin[left] = mine.x, mine.margin
        return best.x

    @property
    def passes(self) -> Passes:
        """One forward pass a query, at most."""
        return Passes(self.queries, 0)


def flipped(spikes: Tensor, places: Tensor) -> Tensor:
    """Return the spikes with those at these places ([N,...] bool) flipped.

    Example:
        >>> flipped(torch.tensor([[0.0, 1.0, 1.0]]), torch.tensor([[True, True, False]])).tolist()
        [[1.0, 0.0, 1.0]]
    """
    return torch.where(places, 1 - spikes, spikes)


def random_places(x: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Draw ``count`` places of each sample, of the shape of x, bool."""
    generator = generator or torch.Generator().manual_seed(0)
    draws = torch.rand(x.shape, generator=generator, device=generator.device).to(x.device)
    return largest(draws + 1, count)


def exchanged(places: Tensor, count: int, draws: Tensor) -> Tensor:
    """Return places of which ``count`` of each sample are exchanged for others; fewer where there are not so many others.

    Args:
        places: [N,...] bool, as many of each sample.
        count: How many.
        draws: Of the same shape, in [0,1); where they are largest, places are given up and taken.

    Example:
        >>> places, draws = torch.tensor([[True, True, False, False]]), torch.tensor([[0.1, 0.7, 0.9, 0.3]])
        >>> exchanged(places, 1, draws).tolist()
        [[True, False, True, False]]
    """
    count = min(count, int((~places).flatten(1).sum(1).min())) if len(places) else 0
    return (places & ~largest((draws + 1) * places, count)) | largest((draws + 1) * ~places, count)

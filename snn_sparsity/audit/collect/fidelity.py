"""Does the gradient predict what a move does to the loss? Predictions beside the change that was computed."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snn_sparsity.attacks.base import LOSSES, LossName, Target, input_gradient, project, random_corners
from snn_sparsity.attacks.codebook import coded_target, score, spikes_of
from snn_sparsity.attacks.lattice import whole_levels
from snn_sparsity.encoders.base import LEVELS, grey_levels
from snn_sparsity.validation import require_number

FRACTIONS = (0.0, 0.001, 0.01, 0.1, 1.0)


class Fidelity(NamedTuple):
    """How well changes of the loss are predicted; plain floats.

    Attributes:
        sign_agreement: Share of moves whose predicted and true change have the same sign, in [0,1]; where one of them is 0, half a move.
        spearman: Rank correlation of predicted and true change over the moves of one sample, averaged over samples, in [-1,1]; 0 for a
            sample where one of the two never varies.
    """

    sign_agreement: float
    spearman: float


def fidelity(predicted: Tensor, true: Tensor) -> Fidelity:
    """Compare predicted and true changes of the loss, both [draws,N].

    Example:
        Four moves of one sample; the second has the wrong sign.

        >>> fidelity(torch.tensor([[-2.0], [1.0], [2.0], [3.0]]), torch.tensor([[-3.0], [-1.0], [1.0], [9.0]]))
        Fidelity(sign_agreement=0.75, spearman=1.0)
    """
    agree = (1 + predicted.sign() * true.sign()).mean().item() / 2
    pairs = zip(predicted.T.cpu().numpy(), true.T.cpu().numpy(), strict=True)
    return Fidelity(agree, float(np.mean([rank_correlation(*pair) for pair in pairs])))


def rank_correlation(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Return the rank correlation of two lists, 0 where one of them is constant.

    Example:
        >>> round(rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([1.0, 9.0, 4.0])), 6)
        0.5
    """
    from scipy.stats import rankdata

    ranks = [rankdata(values) - (len(values) + 1) / 2 for values in (first, second)]
    scale = np.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum())
    return float((ranks[0] * ranks[1]).sum() / scale) if scale > 0 else 0.0


def move_fidelity(target: Target, x: Tensor, labels: Tensor, generator: torch.Generator | None = None, *, eps: float = 8 / 255,
                  draws: int = 20, loss: LossName = "ce") -> Fidelity:  # fmt: skip
    """Compare ``g . d`` with the true change of the loss for random moves d to corners of the ball, cut at the bounds.

    Args:
        target: Spikes or images; g is the gradient that the target declares.
        x: [N,...].
        labels: [N] int64.
        generator: Source of randomness; a fresh one where none is given.
        eps: Radius of the ball, in the units of x.
        draws: Moves for each sample.
        loss: ``ce``, ``margin`` or ``dlr``.

    Returns:
        Sign agreement and rank correlation; costs ``draws + 2`` forward passes and a backward pass of each sample.
    """
    generator = generator or torch.Generator().manual_seed(0)
    gradient, _ = input_gradient(target.logits, x, labels, loss)
    true_change = _true_change(target.logits, x, labels, loss)
    ends = [project(x + random_corners(x, eps, generator), x, eps, target.bounds) for _ in range(draws)]
    predicted = [(gradient * (end - x)).flatten(1).sum(1) for end in ends]
    return fidelity(torch.stack(predicted), torch.stack([true_change(end) for end in ends]))


def group_fidelity(target: Target, x: Tensor, labels: Tensor, generator: torch.Generator | None = None, *, eps: float = 8 / 255,
                   draws: int = 20, fractions: Sequence[float] = FRACTIONS, loss: LossName = "ce") -> dict[float, Fidelity]:  # fmt: skip
    """Move random groups of pixels to random other levels; compare ``sum_t g_t (S[c,t] - S[v,t])`` with the true change of the loss.

    Where agreement falls to a coin's, code-book ascent should move no larger fraction at once.

    Args:
        target: An image behind a code book.
        x: [N,C,H,W] in [0,1].
        labels: [N] int64.
        generator: Source of randomness; a fresh one where none is given.
        eps: Radius of the ball, a whole number of grey levels, at least one.
        draws: Moves for each sample and fraction.
        fractions: Shares of the pixels (of one channel each) that move; one pixel moves at least.
        loss: ``ce``, ``margin`` or ``dlr``.

    Returns:
        By fraction; costs ``fractions x draws + 2`` forward passes and a backward pass of each sample.

    Raises:
        InputError: If the target has no code book, or eps is no such number.
    """
    require_number("eps", eps, at_least=1 / (LEVELS - 1))
    near = _Neighbourhood(target, x, labels, whole_levels(eps), loss)
    generator = generator or torch.Generator().manual_seed(0)
    found = {}
    for fraction in fractions:
        ends = [near.random_move(fraction, generator) for _ in range(draws)]
        found[fraction] = fidelity(*(torch.stack([change(end) for end in ends]) for change in (near.predicted, near.true)))
    return found


class _Neighbourhood:
    """The levels around an image: random ones, and what each does to the loss, predicted and true."""

    def __init__(self, target: Target, x: Tensor, labels: Tensor, radius: int, loss: LossName) -> None:
        coded, self.clean = coded_target(target), grey_levels(x).long()
        self.radius = radius
        gradient, _ = input_gradient(coded.spikes.logits, spikes_of(coded.code_book, self.clean), labels, loss)
        self._changes = score(gradient, coded.code_book, self.clean)
        self.true = _true_change(lambda levels: coded.spikes.logits(spikes_of(coded.code_book, levels)), self.clean, labels, loss)

    def predicted(self, levels: Tensor) -> Tensor:
        """Return the change of the loss that the gradient predicts for levels [N,C,H,W], [N]."""
        return self._changes.gather(1, levels.flatten(1).unsqueeze(1)).sum((1, 2))

    def random_move(self, fraction: float, generator: torch.Generator) -> Tensor:
        """Return levels [N,C,H,W] of which a fraction, one at least, is another one of the ball than the clean one."""
        clean = self.clean.flatten(1)
        low, high = (clean - self.radius).clamp(min=0), (clean + self.radius).clamp(max=LEVELS - 1)
        order, place = (torch.rand(clean.shape, generator=generator, device=generator.device).to(clean.device) for _ in range(2))
        other = low + (place * (high - low)).long()
        other += other >= clean
        count = max(1, round(fraction * clean.shape[1]))
        moved = order.argsort(1).argsort(1) < count
        return torch.where(moved, other, clean).view_as(self.clean)


def _true_change(logits: Callable[[Tensor], Tensor], x: Tensor, labels: Tensor, loss: LossName) -> Callable[[Tensor], Tensor]:
    """Return a function from other inputs [N,...] to the change of the loss [N] that they bring."""

    def value(inputs: Tensor) -> Tensor:
        with torch.no_grad():
            return LOSSES[loss](logits(inputs), labels)

    # Not taken from the pass with a gradient: it may differ in the last bit.
    before = value(x)
    return lambda inputs: value(inputs) - before

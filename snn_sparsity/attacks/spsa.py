"""SPSA: gradients from differences of the loss along random signs."""

from dataclasses import dataclass

import torch
from torch import Tensor

from snn_sparsity.attacks.base import (
    LOSSES,
    Attack,
    BestSoFar,
    LossName,
    Passes,
    Target,
    beside,
    infinite_where_broken,
    project,
    random_corners,
)
from snn_sparsity.validation import require_choice, require_number


@dataclass(frozen=True, kw_only=True)
class SPSA(Attack):
    """Estimate the gradient by ``mean_k (L(x + d v_k) - L(x - d v_k)) / (2 d) v_k`` with random signs v_k, and climb its sign.

    Needs no derivative, only the loss: what blocks or shatters gradients does not touch it (Uesato et al., arXiv 1802.05666).
    Images are put on the 8-bit lattice by the target, so that d should be a grey level at least.

    Args:
        eps: Radius of the ball, in the units of x.
        steps: Steps, at least 1.
        directions: k, pairs of looks a step, at least 1.
        width: d, above 0, in the units of x.
        alpha: Step length, above 0.
        loss: ``ce``, ``margin`` or ``dlr``.

    Raises:
        InputError: For a number outside its range.

    Example:
        One entry: the estimate is exact.

        >>> from types import SimpleNamespace
        >>> target = SimpleNamespace(space="image", bounds=(0.0, 1.0), logits=lambda x: torch.cat([1 - x, x], 1))
        >>> SPSA(eps=0.25, steps=1, directions=1, alpha=0.25)(target, torch.tensor([[0.5]]), torch.tensor([0])).tolist()
        [[0.75]]
    """

    steps: int = 20
    directions: int = 16
    width: float = 2 / 255
    alpha: float = 2 / 255
    loss: LossName = "margin"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("steps", self.steps, at_least=1, whole=True)
        require_number("directions", self.directions, at_least=1, whole=True)
        require_number("width", self.width, above=0, at_most=1)
        require_number("alpha", self.alpha, above=0, at_most=1)
        require_choice("loss", self.loss, LOSSES)

    def __call__(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Attack; see :meth:`Attack.__call__`."""
        generator = generator or torch.Generator().manual_seed(0)
        best, x_adv, most = BestSoFar.nothing(x), x, torch.finfo(x.dtype).max / self.directions
        with torch.no_grad():
            for _ in range(self.steps):
                slope = torch.zeros_like(x)
                for _ in range(self.directions):
                    signs = random_corners(x, 1.0, generator)
                    ends = [(x_adv + side * self.width * signs).clamp(*target.bounds) for side in (1, -1)]
                    up, down = (self._loss(target.logits(end), labels) for end in ends)
                    slope += beside((up - down).nan_to_num(0, most, -most), x) * signs
                x_adv = project(x_adv + self.alpha * slope.sign(), x, self.eps, target.bounds)
                best.update(x_adv, target.logits(x_adv), labels)
        return best.x

    @property
    def passes(self) -> Passes:
        """Two looks a direction, and one at each iterate."""
        return Passes(self.steps * (2 * self.directions + 1), 0)

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return infinite_where_broken(LOSSES[self.loss](logits, labels), logits)

"""Fast gradient sign method."""

from dataclasses import dataclass

import torch
from torch import Tensor

from snn_sparsity.attacks.base import LOSSES, Attack, LossName, Passes, Target, input_gradient, project, random_corners
from snn_sparsity.validation import require_choice


@dataclass(frozen=True, kw_only=True)
class FGSM(Attack):
    """Fast gradient sign method: ``x + eps sign(grad loss)``, in the bounds (the paper's equation 2; arXiv 1412.6572).

    This is PGD with one step of length eps and no random start. With ``random_start`` it is R-FGSM (Tramer et al., arXiv 1705.07204):
    ``x' = x + eps/2 sign(N(0,1))``, in the bounds, then ``x' + eps/2 sign(grad loss(x'))``.

    Args:
        eps: Radius of the ball, in the units of x.
        random_start: Whether half of eps is spent on random signs first (R-FGSM).
        loss: ``ce``, ``margin`` or ``dlr``.

    Raises:
        InputError: For a negative eps or an unknown loss.

    Example:
        On the linear model z = (0, 2 x1 - 3 x2) with label 0, the step is eps in the direction of the weights' signs.

        >>> from types import SimpleNamespace
        >>> weights = torch.tensor([[0.0, 0.0], [2.0, -3.0]])
        >>> target = SimpleNamespace(space="image", bounds=(0.0, 1.0), logits=lambda x: x @ weights.T)
        >>> FGSM(eps=0.25)(target, torch.tensor([[0.5, 0.5]]), torch.tensor([0])).tolist()
        [[0.75, 0.25]]
    """

    random_start: bool = False
    loss: LossName = "ce"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("loss", self.loss, LOSSES)

    def __call__(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Attack; see :meth:`Attack.__call__`."""
        start, length = x, float(self.eps)
        if self.random_start:
            start, length = project(x + random_corners(x, self.eps / 2, generator), x, self.eps, target.bounds), self.eps / 2
        gradient, _ = input_gradient(target.logits, start, labels, self.loss)
        return project(start + length * gradient.sign(), x, self.eps, target.bounds)

    @property
    def passes(self) -> Passes:
        """One forward and one backward pass."""
        return Passes(1, 1)

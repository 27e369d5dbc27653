"""Replace the image by another one: the attack that must win where any image is allowed."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from snn_sparsity.attacks.base import Attack, BestSoFar, Passes, Target, project


@dataclass(frozen=True)
class Swap(Attack):
    """Move towards other images as far as the ball allows, and keep the one that fools most.

    In the largest ball it succeeds by construction, without a gradient; an attack that does worse there has none to follow. Made in Python,
    not in a configuration: images are no setting.

    Args:
        others: [M,...], inputs of the target's space.
        eps: Radius of the ball, in the units of x.

    Example:
        >>> from types import SimpleNamespace
        >>> target = SimpleNamespace(space="image", bounds=(0.0, 1.0), logits=lambda x: torch.cat([1 - x, x], 1))
        >>> Swap(torch.tensor([[0.9], [0.1]]), eps=1.0)(target, torch.tensor([[0.2]]), torch.tensor([0])).tolist()
        [[0.8999999761581421]]
    """

    others: Tensor = field(repr=False)

    def __call__(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Attack; see :meth:`Attack.__call__`."""
        best = BestSoFar.nothing(x)
        with torch.no_grad():
            for other in self.others:
                moved = project(other.to(x).expand_as(x), x, self.eps, target.bounds)
                best.update(moved, target.logits(moved), labels)
        return best.x

    @property
    def passes(self) -> Passes:
        """A look at each of the others."""
        return Passes(len(self.others), 0)

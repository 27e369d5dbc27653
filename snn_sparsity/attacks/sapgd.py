"""SA-PGD: an ascent whose step adapts to each element's own gradient."""

from dataclasses import dataclass

import torch
from torch import Tensor

from snn_sparsity.attacks.apgd import checkpoints
from snn_sparsity.attacks.base import LOSSES, Attack, BestSoFar, LossName, Passes, Target, input_gradient, project
from snn_sparsity.validation import require_choice, require_number


@dataclass(frozen=True, kw_only=True)
class SAPGD(Attack):
    """Stable adaptive PGD: steps in proportion to momentum over root mean square, so that noisy signs move little (arXiv 2512.22522).

    With g the gradient of one sample, ``m <- m/2 + g / mean|g|``, ``v <- 0.8 v + g^2 / mean g^2`` and
    ``x <- Pi(x + clip(h m / (sqrt(v) + 1e-12), -h, h))``; h is eps at first and halves at each of Auto-PGD's checkpoints. A gradient that
    is 0, or not finite, counts as 0, where the published code divides by it. The iterate with the largest margin is returned.

    Args:
        eps: Radius of the ball, in the units of x.
        steps: Number of gradient steps, at least 1.
        loss: ``ce``, ``margin`` or ``dlr``.

    Raises:
        InputError: For a number outside its range.

    Example:
        The first step is eps sign(g): m / sqrt(v) is then sign(g) times root mean square over mean of g, at least 1.

        >>> from types import SimpleNamespace
        >>> weights = torch.tensor([[0.0, 0.0], [2.0, -3.0]])
        >>> target = SimpleNamespace(space="image", bounds=(0.0, 1.0), logits=lambda x: x @ weights.T)
        >>> SAPGD(eps=0.25, steps=1)(target, torch.tensor([[0.5, 0.5]]), torch.tensor([0])).tolist()
        [[0.75, 0.25]]
    """

    steps: int = 100
    loss: LossName = "ce"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("steps", self.steps, at_least=1, whole=True)
        require_choice("loss", self.loss, LOSSES)

    def __call__(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Attack; see :meth:`Attack.__call__`."""
        best, x_adv, length = BestSoFar.nothing(x), x, self.eps
        slower_after = checkpoints(self.steps)
        momentum = energy = torch.zeros_like(x)
        for step in range(1, self.steps + 1):
            gradient, logits = input_gradient(target.logits, x_adv, labels, self.loss)
            best.update(x_adv, logits, labels)
            relative = over_its_mean(gradient)
            momentum = 0.5 * momentum + relative
            energy = 0.8 * energy + over_its_mean(relative.square())
            x_adv = project(x_adv + (length * momentum / (energy.sqrt() + 1e-12)).clamp(-length, length), x, self.eps, target.bounds)
            length = length / 2 if step in slower_after else length
        with torch.no_grad():
            best.update(x_adv, target.logits(x_adv), labels)
        return best.x

    @property
    def passes(self) -> Passes:
        """``steps`` of each, and a look at the last iterate."""
        return Passes(self.steps + 1, self.steps)


def over_its_mean(values: Tensor) -> Tensor:
    """Return values [N,...] over each sample's mean absolute value; 0 for a sample where that is 0 or not finite.

    Example:
        >>> over_its_mean(torch.tensor([[1.0, -3.0], [0.0, 0.0], [1.0, float("inf")]])).tolist()
        [[0.5, -1.5], [0.0, 0.0], [0.0, 0.0]]
    """
    mean = values.abs().mean(dim=tuple(range(1, values.ndim)), keepdim=True)
    return torch.where((mean > 0) & mean.isfinite(), values / mean, 0)

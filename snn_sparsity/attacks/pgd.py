"""Projected gradient descent."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from snn_sparsity.attacks.base import LOSSES, Attack, BestSoFar, LossName, Passes, Target, input_gradient, project, uniform_noise
from snn_sparsity.units import Levels
from snn_sparsity.validation import require_choice, require_number


@dataclass(frozen=True, kw_only=True)
class PGD(Attack):
    """Projected gradient descent: ``x <- Pi(x + alpha sign(grad loss))`` (the paper's equation 3; Madry et al., arXiv 1706.06083).

    A gradient entry that is exactly 0 has sign 0 and is not moved: sparse gradients weaken this attack by construction.

    Args:
        eps: Radius of the ball, in the units of x.
        alpha: Step length, above 0.
        steps: Number of gradient steps, at least 1.
        random_start: Whether to start at a uniform draw from the ball rather than at x.
        restarts: Number of runs; the best result of each sample is kept.
        loss: ``ce``, ``margin`` or ``dlr``.
        keep: ``best`` returns the iterate with the largest margin, ``last`` the last one, as published code does.

    Raises:
        InputError: For a number outside its range.

    Example:
        >>> PGD(steps=20, restarts=5)
        PGD(eps=8/255, alpha=0.01, steps=20, random_start=True, restarts=5, loss='ce', keep='best')
    """

    alpha: Levels | float = Levels(0.01)
    steps: int = 7
    random_start: bool = True
    restarts: int = 1
    loss: LossName = "ce"
    keep: Literal["best", "last"] = "best"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("alpha", self.alpha, above=0, at_most=1)
        require_number("steps", self.steps, at_least=1, whole=True)
        require_number("restarts", self.restarts, at_least=1, whole=True)
        require_choice("loss", self.loss, LOSSES)
        require_choice("keep", self.keep, ("best", "last"))

    def __call__(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Attack; see :meth:`Attack.__call__`."""
        best = BestSoFar.nothing(x)
        # One stream for all restarts: a fresh one each would begin them all at the same point.
        generator = generator or torch.Generator().manual_seed(0)
        for _ in range(self.restarts):
            start = x + uniform_noise(x, self.eps, generator) if self.random_start else x
            last = self.ascend(target, x, labels, start, best if self.keep == "best" else None)
            if self._candidates == 1:
                return last
            with torch.no_grad():
                best.update(last, target.logits(last), labels)
        return best.x

    def ascend(self, target: Target, x: Tensor, labels: Tensor, start: Tensor, best: BestSoFar | None = None) -> Tensor:
        """Run the steps once from a given start and return the last iterate.

        Args:
            target: What is attacked.
            x: [N,...], the centre of the ball.
            labels: [N] int64.
            start: [N,...]; it is projected into the ball and the bounds first.
            best: Told of every iterate between the start and the last one, whose logits cost nothing extra.

        Returns:
            The last iterate, of the shape of x.
        """
        x_adv = project(start, x, self.eps, target.bounds)
        for step in range(self.steps):
            gradient, logits = input_gradient(target.logits, x_adv, labels, self.loss)
            if best is not None and step > 0:
                best.update(x_adv, logits, labels)
            x_adv = project(x_adv + self.alpha * gradient.sign(), x, self.eps, target.bounds)
        return x_adv

    @property
    def passes(self) -> Passes:
        """``restarts x steps`` of each, and a last look at each result where there are several to choose from."""
        steps = self.restarts * self.steps
        return Passes(steps + (self.restarts if self._candidates > 1 else 0), steps)

    @property
    def _candidates(self) -> int:
        return self.restarts * (self.steps if self.keep == "best" else 1)

"""Auto-PGD: projected gradient descent that chooses its own step lengths."""

from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from snn_sparsity.attacks.base import LOSSES, Attack, BestSoFar, Loss, Passes, Target, beside, input_gradient, project, uniform_noise
from snn_sparsity.validation import InputError, require_choice, require_number


@dataclass(frozen=True, kw_only=True)
class APGD(Attack):
    """Auto-PGD: PGD with momentum and, for each sample, a step that halves where the loss no longer rises (arXiv 2003.01690).

    With step length h (2 eps at first) and a = 3/4 (1 at the first step), ``w = Pi(x_k + h sign(grad loss))`` and
    ``x_(k+1) = Pi(x_k + a (w - x_k) + (1 - a)(x_k - x_(k-1)))``. At each of the :func:`checkpoints` h halves, and the sample goes back to
    the point of its highest loss, if the loss rose in at most ``rho`` of the steps since the last one, or if h was kept there and
    the highest loss is still the same. Equal to pyautoattack 0.2, but for what is returned: the iterate with the largest margin.

    Args:
        eps: Radius of the ball, in the units of x.
        steps: Number of gradient steps, at least 1.
        loss: ``ce``, ``margin``, ``dlr``, or ``targeted``: the targeted DLR loss towards one wrong class.
        rank: Which class ``targeted`` aims at: 2 is the wrong class with the highest logit of the clean input, 3 the next.
        rho: Share of rising steps that a sample must exceed to keep its step length, from 0 to 1.
        random_start: Whether to start at a draw from the ball, scaled so that one element touches eps, rather than at x.

    Raises:
        InputError: For a number outside its range; in a call, for ``dlr`` with fewer than three classes, ``targeted`` with fewer than four.

    Example:
        On the linear model z = (0, 2 x1 - 3 x2) with label 0 the optimum is the corner in the direction of the weights' signs.

        >>> from types import SimpleNamespace
        >>> weights = torch.tensor([[0.0, 0.0], [2.0, -3.0]])
        >>> target = SimpleNamespace(space="image", bounds=(0.0, 1.0), logits=lambda x: x @ weights.T)
        >>> APGD(eps=0.25, steps=10)(target, torch.tensor([[0.5, 0.5]]), torch.tensor([0])).tolist()
        [[0.75, 0.25]]
    """

    steps: int = 100
    loss: Literal["ce", "margin", "dlr", "targeted"] = "ce"
    rank: int = 2
    rho: float = 0.75
    random_start: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("steps", self.steps, at_least=1, whole=True)
        require_choice("loss", self.loss, (*LOSSES, "targeted"))
        require_number("rank", self.rank, at_least=2, whole=True)
        require_number("rho", self.rho, at_least=0, at_most=1)

    def __call__(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Attack; see :meth:`Attack.__call__`."""
        loss, best = self._loss_for(target, x, labels), BestSoFar.nothing(x)

        def look(x_adv: Tensor) -> "Iterate":
            gradient, logits = input_gradient(target.logits, x_adv, labels, loss)
            best.update(x_adv, logits, labels)
            return Iterate(x_adv, gradient, loss(logits, labels))

        start = x + self.eps * touching_noise(x, generator) if self.random_start else x
        now = look(project(start, x, self.eps, target.bounds))
        climb, previous, keep = Climb(now, 2 * self.eps), now.x, 1.0
        slower_after = checkpoints(self.steps)
        for step in range(1, self.steps + 1):
            ahead = project(now.x + beside(climb.length, x) * now.gradient.sign(), x, self.eps, target.bounds)
            ahead = project(now.x + keep * (ahead - now.x) + (1 - keep) * (now.x - previous), x, self.eps, target.bounds)
            previous, keep, now = now.x, 0.75, look(ahead)
            climb.note(now)
            if step in slower_after:
                now = climb.slow_down(now, self.rho)
        return best.x

    @property
    def passes(self) -> Passes:
        """One of each a step and at the start; ``targeted`` looks at the clean input first."""
        return Passes(self.steps + 1 + (self.loss == "targeted"), self.steps + 1)

    def _loss_for(self, target: Target, x: Tensor, labels: Tensor) -> Loss:
        if self.loss != "targeted":
            return LOSSES[self.loss]
        with torch.no_grad():
            logits = target.logits(x)
        needed = max(4, self.rank)
        if logits.shape[1] < needed:
            raise InputError(f"loss='targeted' with rank={self.rank} needs at least {needed} classes, there are {logits.shape[1]}")
        others = logits.scatter(1, labels[:, None], float("-inf"))
        return partial(targeted_difference_of_logits_ratio, aims=others.topk(self.rank - 1, dim=1).indices[:, -1])


class Iterate(NamedTuple):
    """Where each sample is: x [N,...], the gradient there, and the loss [N]."""

    x: Tensor
    gradient: Tensor
    loss: Tensor

    def replaced(self, chosen: Tensor, other: "Iterate") -> "Iterate":
        """Return this iterate, with the samples chosen ([N] bool) taken from the other."""
        return Iterate(*(torch.where(beside(chosen, mine), theirs, mine) for mine, theirs in zip(self, other, strict=True)))


class Climb:
    """What Auto-PGD remembers of each sample: its step length, its highest point, and how the loss has moved since the last checkpoint."""

    def __init__(self, start: Iterate, length: float) -> None:
        self.top = start
        self.length = torch.full_like(start.loss, length)
        self.steps = 0
        self.rises = torch.zeros_like(start.loss)
        # The published code compares the first step with a loss of 0, not with that of the start.
        self.last_loss = torch.zeros_like(start.loss)
        self.checked_loss = start.loss
        self.halved = torch.ones_like(start.loss, dtype=torch.bool)

    def note(self, now: Iterate) -> None:
        """Take in a step."""
        self.steps += 1
        self.rises += now.loss > self.last_loss
        self.last_loss = now.loss
        self.top = self.top.replaced(now.loss > self.top.loss, now)

    def slow_down(self, now: Iterate, rho: float) -> Iterate:
        """Halve the step of the samples that are stuck, and return where to go on: they do so at their highest point."""
        self.halved = (self.rises <= rho * self.steps) | (~self.halved & (self.top.loss <= self.checked_loss))
        self.length = torch.where(self.halved, self.length / 2, self.length)
        self.checked_loss, self.rises, self.steps = self.top.loss, torch.zeros_like(self.rises), 0
        return now.replaced(self.halved, self.top)


def checkpoints(steps: int) -> list[int]:
    """Return the steps after which Auto-PGD looks back: 22 % of them, then intervals 3 % shorter each time, down to 6 %.

    Example:
        >>> checkpoints(100)
        [22, 41, 57, 70, 80, 87, 93, 99]
    """
    first, shorter, least = (max(int(share * steps), 1) for share in (0.22, 0.03, 0.06))
    lengths = (max(first - number * shorter, least) for number in range(steps))
    return [step for step in accumulate(lengths) if step <= steps]


def targeted_difference_of_logits_ratio(logits: Tensor, labels: Tensor, aims: Tensor) -> Tensor:
    """Return ``(z_t - z_y) / (z_(1) - (z_(3) + z_(4)) / 2)`` per sample: the DLR loss towards class t.

    From Croce and Hein, arXiv 2003.01690, equation 7. 1e-12 is added to the denominator.

    Args:
        logits: [N,K] with at least four classes, or M draws after one another, [M N,K].
        labels: [N], or [M N].
        aims: t, [N].

    Example:
        >>> targeted_difference_of_logits_ratio(torch.tensor([[2.0, 5.0, 1.0, 3.0]]), torch.tensor([1]), torch.tensor([0])).tolist()
        [-0.8571428656578064]
    """
    aims = aims.repeat(len(logits) // max(len(aims), 1))
    top = logits.topk(4, dim=1).values
    aim, true = (logits.gather(1, classes[:, None]).squeeze(1) for classes in (aims, labels))
    return (aim - true) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + 1e-12)


def touching_noise(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw noise of the shape of x whose largest absolute value is 1 in each sample."""
    noise = uniform_noise(x, 1.0, generator)
    return noise / (beside(noise.flatten(1).abs().amax(1), x) + 1e-12)

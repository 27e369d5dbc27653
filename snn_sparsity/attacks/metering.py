"""What an attack did to its target, seen from outside: passes, zero gradients, iterates that fooled."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from snn_sparsity.attacks.base import LOSSES, correct
from snn_sparsity.attacks.wrapped import WrappedTarget


@dataclass
class Meter:
    """Counts of one attack on one batch.

    Calls with other images than the whole batch (an attack that drops some) are counted, and not looked at by sample.

    Args:
        labels: [N] int64, the true classes of the batch.
        x: [N,...], what is attacked; None where an attack looks at nothing outside the ball.
        eps: Radius of the ball.

    Attributes:
        forwards: Images pushed forward so far.
        backwards: Images pushed backward so far.
        zero_at_start: [N] bool, whether the whole first gradient was exactly 0; None before the first.
        zero: [N] bool, whether the whole gradient was exactly 0 at any step.
        fooled: [N] bool, whether the label lost at any input in the ball that the attack looked at.
        losses: Cross-entropy [N] at each gradient.
    """

    labels: Tensor
    x: Tensor | None = None
    eps: float = 0.0
    forwards: int = 0
    backwards: int = 0
    zero_at_start: Tensor | None = None
    zero: Tensor = field(init=False)
    fooled: Tensor = field(init=False)
    losses: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.zero = torch.zeros_like(self.labels, dtype=torch.bool)
        self.fooled = self.zero.clone()

    def saw_logits(self, x: Tensor, logits: Tensor) -> None:
        """Note a forward pass of inputs [N,...] to logits [N,K] or [M,N,K]."""
        count = logits.shape[:-1].numel()
        self.forwards += count
        if x.requires_grad:
            self.backwards += count
            x.register_hook(self._saw_gradient)
        mean = logits.detach() if logits.ndim == 2 else logits.detach().mean(0)
        if len(mean) == len(self.labels):
            fooled = ~correct(mean, self.labels)
            if self.x is not None and x.shape == self.x.shape:
                fooled &= (x.detach() - self.x).abs().flatten(1).amax(1) <= self.eps + 1e-6
            self.fooled |= fooled
            if x.requires_grad:
                self.losses.append(LOSSES["ce"](mean, self.labels))

    def _saw_gradient(self, gradient: Tensor) -> None:
        if len(gradient) != len(self.labels):
            return
        zero = (gradient.flatten(1) == 0).all(1)
        self.zero_at_start = zero if self.zero_at_start is None else self.zero_at_start
        self.zero |= zero


class Metered(WrappedTarget):
    """A target that tells a meter of every call; to an attack it looks like the target it wraps.

    Example:
        >>> from types import SimpleNamespace
        >>> from snn_sparsity.attacks import PGD
        >>> target = SimpleNamespace(space="image", bounds=(0.0, 1.0), logits=lambda x: x)
        >>> meter = Meter(torch.tensor([0]))
        >>> _ = PGD(steps=3)(Metered(target, meter), torch.tensor([[0.9, 0.1]]), torch.tensor([0]))
        >>> meter.forwards, meter.backwards, meter.zero.tolist()
        (4, 3, [False])
    """

    def __init__(self, target: Any, meter: Meter) -> None:
        super().__init__(target)
        self.meter = meter

    def around(self, target: Any) -> "Metered":
        """Return another target on the same meter."""
        return Metered(target, self.meter)

    def logits(self, x: Tensor) -> Tensor:
        """Return the target's logits."""
        logits: Tensor = self.target.logits(x)
        if x.requires_grad and not logits.requires_grad:
            # A module that blocks the gradient: it is 0, and not missing.
            logits = logits + 0 * x.sum()
        self.meter.saw_logits(x, logits)
        return logits

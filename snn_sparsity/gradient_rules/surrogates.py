"""Other derivatives of the spike, the same for all."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from snn_sparsity.gradient_rules.base import GradientRule, replaced
from snn_sparsity.validation import require_choice, require_number

SurrogateName = Literal["atan", "sigmoid", "rect", "triangle", "gaussian"]
Sharpness = float | Tensor


class Surrogate(nn.Module, ABC):
    """The step ``s = 1[u >= 0]`` with a derivative of our own: one call a time step, u [N,...] is the potential less its threshold.

    A class of our own because SpikingJelly 2 runs a fused kernel for its own surrogates, which reads their class name and alpha
    and silently ignores a patched ``forward``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.step = 0

    def restart(self, *_: object) -> None:
        """Go back to the first time step: a forward pre-hook of the neuron."""
        self.step = 0

    def forward(self, u: Tensor) -> Tensor:
        """Return the spikes; passes that take no gradient leave no trace in the rule."""
        spikes = _Step.apply(u, self.slope(u.detach())) if u.requires_grad else (u >= 0).to(u)
        self.step += 1
        return spikes

    @abstractmethod
    def slope(self, u: Tensor) -> Tensor:
        """Return the derivative at u, of its shape; ``self.step`` says which time step it is."""


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(slope)
        return (u >= 0).to(u)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        return gradients[0] * slope, None


class SurrogateRule(GradientRule):
    """A rule that gives every neuron a surrogate of its own."""

    @contextmanager
    def changed(self, layer: nn.Module) -> Iterator[None]:
        """Swap the neuron's surrogate."""
        surrogate = self.surrogate()
        with replaced(layer, "surrogate_function", surrogate):
            restart = layer.register_forward_pre_hook(surrogate.restart)
            try:
                yield
            finally:
                restart.remove()

    @abstractmethod
    def surrogate(self) -> Surrogate:
        """Return a new surrogate for one neuron layer."""


def _atan(u: Tensor, alpha: Sharpness) -> Tensor:
    return (alpha / 2) / (1 + (math.pi / 2 * alpha * u) ** 2)


def _sigmoid(u: Tensor, alpha: Sharpness) -> Tensor:
    sigma = torch.sigmoid(alpha * u)
    return alpha * sigma * (1 - sigma)


def _rect(u: Tensor, alpha: Sharpness) -> Tensor:
    return alpha * (u.abs() < 0.5 / alpha).to(u)


def _triangle(u: Tensor, alpha: Sharpness) -> Tensor:
    return alpha * (1 - alpha * u.abs()).clamp(min=0)


def _gaussian(u: Tensor, alpha: Sharpness) -> Tensor:
    return alpha / math.sqrt(2 * math.pi) * torch.exp(-((alpha * u) ** 2) / 2)


SHAPES: dict[SurrogateName, Callable[[Tensor, Sharpness], Tensor]] = {
    "atan": _atan,
    "sigmoid": _sigmoid,
    "rect": _rect,
    "triangle": _triangle,
    "gaussian": _gaussian,
}


@dataclass(frozen=True)
class SurrogateShape(SurrogateRule):
    """The same derivative for every spike: u is the membrane potential less its threshold, alpha the sharpness, the area 1.

    | shape | derivative at u | at 0 | half of it at abs(u) |
    |---|---|---|---|
    | ``atan`` | ``(alpha/2) / (1 + (pi/2 alpha u)^2)`` | alpha/2 | 2/(pi alpha) |
    | ``sigmoid`` | ``alpha s (1-s), s = 1/(1+exp(-alpha u))`` | alpha/4 | 1.763/alpha |
    | ``rect`` | ``alpha`` where ``abs(u) < 1/(2 alpha)``, else 0 | alpha | (edge at) 1/(2 alpha) |
    | ``triangle`` | ``alpha max(0, 1 - alpha abs(u))`` | alpha | 1/(2 alpha) |
    | ``gaussian`` | ``alpha/sqrt(2 pi) exp(-(alpha u)^2 / 2)`` | 0.399 alpha | 1.177/alpha |

    Args:
        shape: One of the table.
        alpha: Sharpness, above 0, in units of 1/membrane potential.

    Raises:
        InputError: For another shape, or alpha not above 0.

    Example:
        Input 0.75 is 0.25 below the threshold.

        >>> from snn_sparsity.networks import IFNeuron
        >>> node, x = IFNeuron().build(), torch.tensor([[0.75]], requires_grad=True)
        >>> node.step_mode = "m"
        >>> with SurrogateShape("triangle", alpha=2.0).applied(node):
        ...     torch.autograd.grad(node(x).sum(), x)[0].item()
        1.0
    """

    shape: SurrogateName = "atan"
    alpha: float = 2.0

    def __post_init__(self) -> None:
        require_choice("shape", self.shape, SHAPES)
        require_number("alpha", self.alpha, above=0)

    def surrogate(self) -> Surrogate:
        """Return the step with this derivative."""
        return _Fixed(SHAPES[self.shape], self.alpha)


class _Fixed(Surrogate):
    def __init__(self, derivative: Callable[[Tensor, Sharpness], Tensor], alpha: float) -> None:
        super().__init__()
        self.derivative, self.alpha = derivative, alpha

    def slope(self, u: Tensor) -> Tensor:
        return self.derivative(u, self.alpha)

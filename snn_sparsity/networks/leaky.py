"""Leaky integrate-and-fire neurons as the published defences use them: every number given or learnt, every order of steps."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from spikingjelly.activation_based import neuron
from torch import Tensor, nn

from snn_sparsity.networks.neurons import SURROGATES, IFNeuron
from snn_sparsity.validation import InputError, require_choice, require_number

Learnt = Literal["threshold", "leak", "width"]
SurrogateName = Literal["triangle", "linear", "piecewise_quadratic", "exponential", "rect", "sigmoid", "atan"]

DAMPING = 0.3
"""Height at the threshold of ``linear`` and ``exponential``, in all published code that uses them."""


def _triangle(r: Tensor) -> Tensor:
    return (1 - r.abs()).clamp(min=0)


SLOPES: dict[str, Callable[[Tensor], Tensor]] = {
    "triangle": _triangle,
    "piecewise_quadratic": _triangle,
    "linear": lambda r: DAMPING * _triangle(r),
    "exponential": lambda r: DAMPING * torch.exp(-r.abs()),
    "rect": lambda r: (r.abs() < 0.5).to(r),
    "sigmoid": lambda r: torch.sigmoid(r) * torch.sigmoid(-r),
    "atan": lambda r: 0.5 / (1 + (math.pi / 2 * r) ** 2),
}
AREAS: dict[str, Callable[[Tensor], Tensor]] = {
    "triangle": lambda r: 1 - _triangle(r) ** 2,
    "piecewise_quadratic": lambda r: 1 - _triangle(r) ** 2,
    "linear": lambda r: 1 - _triangle(r) ** 2,
    "exponential": lambda r: 1 - torch.exp(-r),
    "rect": lambda r: (2 * r).clamp(max=1),
    "sigmoid": lambda r: torch.tanh(r / 2),
    "atan": lambda r: 2 / math.pi * torch.atan(math.pi / 2 * r),
}
"""Share of each slope's area between -r and r, for r at least 0."""
RELATIVE = ("linear", "exponential")
"""Surrogates that see the potential in thresholds, ``u / V_th - 1``; the others see ``u - V_th``."""


@dataclass(frozen=True)
class LeakyNeuron:
    """Recipe of a leaky integrate-and-fire neuron: ``neuron.build()`` makes a fresh layer.

    ``u[t] = leak m[t-1] + x[t]``, ``s[t] = [u[t] >= V_th]``, then ``m[t] = (1 - s[t]) u[t]`` (reset ``zero``) or ``u[t] - V_th s[t]``
    (``subtract``). Backwards ``ds/du`` is a surrogate, with r = (u - V_th) / width, or (u / V_th - 1) / width for the last two:

    | surrogate | slope times width | used by |
    |---|---|---|
    | ``triangle``, ``piecewise_quadratic`` | ``max(0, 1 - abs(r))`` (two names of one shape) | SNN-RAT, SR |
    | ``rect`` | 1 where ``abs(r) < 1/2`` | |
    | ``sigmoid`` | ``s (1 - s), s = 1 / (1 + exp(-r))`` | |
    | ``atan`` | ``(1/2) / (1 + (pi/2 r)^2)`` | the paper |
    | ``linear`` | ``0.3 max(0, 1 - abs(r))``, per threshold | HIRE-SNN, Sharmin et al. |
    | ``exponential`` | ``0.3 exp(-abs(r))``, per threshold | Sharmin et al. |

    Defaults are those of SNN-RAT and SR. A neuron without leak that SpikingJelly knows is built as its ``IFNode``.

    Args:
        threshold: V_th, above 0; where it starts, if learnt.
        leak: Share of the potential that a step keeps, 0 to 1; 1 is integrate-and-fire.
        surrogate: One of the table.
        width: Of the surrogate, above 0; 1 / alpha in SpikingJelly's terms.
        learnt: Which of ``threshold``, ``leak`` and ``width`` each layer learns, as one number. The width's gradient is that of the
            surrogate's primitive, ``ds/dwidth = -(r) ds/du``.
        reset: ``zero`` or ``subtract``. The threshold that is subtracted is part of the backward pass.
        detach_reset: Whether the spike in the reset counts as a constant backwards.
        strict: Whether it fires above the threshold only, not at it.
        delayed: Whether a spike is decided by the potential before the step's input arrives; needs ``subtract``:
            ``s[t] = [m[t-1] > V_th]``, ``m[t] = leak m[t-1] + x[t] - V_th s[t]``.

    Raises:
        InputError: For a value not allowed.

    Example:
        HIRE-SNN's neuron at a constant 5/8: at the eighth step the potential is exactly 1, which is not above the threshold.

        >>> node = LeakyNeuron(surrogate="linear", reset="subtract", detach_reset=True, strict=True, learnt=["threshold", "leak"]).build()
        >>> node.step_mode = "m"
        >>> node(torch.full((8, 1), 0.625)).flatten().int().tolist()
        [0, 1, 0, 1, 1, 0, 1, 0]
    """

    threshold: float = 1.0
    leak: float = 1.0
    surrogate: SurrogateName = "triangle"
    width: float = 1.0
    learnt: list[Learnt] | None = None
    reset: Literal["zero", "subtract"] = "zero"
    detach_reset: bool = False
    strict: bool = False
    delayed: bool = False

    def __post_init__(self) -> None:
        require_number("threshold", self.threshold, above=0)
        require_number("leak", self.leak, at_least=0, at_most=1)
        require_choice("surrogate", self.surrogate, SLOPES)
        require_number("width", self.width, above=0)
        require_choice("reset", self.reset, ("zero", "subtract"))
        for name in self.learnt or []:
            require_choice("learnt", name, ("threshold", "leak", "width"))
        if self.delayed and self.reset != "subtract":
            raise InputError(f"delayed=true with reset={self.reset!r} is not allowed: give reset='subtract'")

    def build(self) -> nn.Module:
        """Return a new neuron layer without state."""
        name = "piecewise_quadratic" if self.surrogate == "triangle" else self.surrogate
        if self.leak == 1 and not (self.learnt or self.strict or self.delayed) and name in SURROGATES:
            reset = 0.0 if self.reset == "zero" else None
            return IFNeuron(self.threshold, reset, name, 1 / self.width, self.detach_reset).build()  # type: ignore[arg-type]  # the name is one of IFNeuron's
        return LeakyNode(self)


class LeakyNode(neuron.SimpleBaseNode):  # type: ignore[misc]  # SpikingJelly ships no types
    """A layer of the neurons that a :class:`LeakyNeuron` describes.

    What is learnt is in the state dict, as ``v_threshold``, ``leak`` and ``surrogate_function.width``, each one number.
    """

    v: Tensor | float

    def __init__(self, recipe: LeakyNeuron) -> None:
        learnt = recipe.learnt or []
        surrogate = SlopedStep(recipe.surrogate, _number(recipe.width, "width" in learnt))
        super().__init__(1.0, None if recipe.reset == "subtract" else 0.0, surrogate, recipe.detach_reset)
        self.v_threshold = _number(recipe.threshold, "threshold" in learnt)
        self.leak = _number(recipe.leak, "leak" in learnt)
        self.relative = recipe.surrogate in RELATIVE
        self.strict, self.delayed = recipe.strict, recipe.delayed

    def single_step_forward(self, x: Tensor) -> Tensor:
        """Return the spikes of one time step, of the shape of x."""
        v = self.v if isinstance(self.v, Tensor) else torch.zeros_like(x)
        u = v if self.delayed else self.leak * v + x
        spikes = self._fire(u)
        mask = spikes.detach() if self.detach_reset else spikes
        if self.delayed:
            self.v = self.leak * v + x - self.v_threshold * mask
        else:
            self.v = u - self.v_threshold * mask if self.v_reset is None else (1 - mask) * u
        return spikes

    def _fire(self, u: Tensor) -> Tensor:
        distance = u / self.v_threshold - 1 if self.relative else u - self.v_threshold
        spikes: Tensor = self.surrogate_function(distance)
        # Values are 0 and 1, so that the sum is exact; any surrogate, a backward rule's too, keeps its gradient.
        return spikes + ((distance > 0).to(spikes) - spikes).detach() if self.strict else spikes


class SlopedStep(nn.Module):
    """The step ``s = [x >= 0]`` with the slope ``k(x / width) / width`` backwards.

    Args:
        shape: k, a name in ``SLOPES``.
        width: A number, or the parameter that learns it.
    """

    def __init__(self, shape: str, width: float | nn.Parameter) -> None:
        super().__init__()
        self.shape, self.width = shape, width

    def forward(self, x: Tensor) -> Tensor:
        """Return the spikes, of the shape of x."""
        # Filled where x is: a copy of a number from the host would make it wait for the GPU at each time step.
        width = self.width.to(x) if isinstance(self.width, Tensor) else x.new_full((), self.width)
        return _Step.apply(x, width, SLOPES[self.shape])

    def area_within(self, distance: Tensor) -> Tensor:
        """Return the share of the slope's area between -d and d, for distances d of at least 0.

        Example:
            >>> SlopedStep("triangle", 2.0).area_within(torch.tensor([0.0, 1.0, 3.0])).tolist()
            [0.0, 0.75, 1.0]
        """
        return AREAS[self.shape](distance / torch.as_tensor(self.width).detach())


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, width: Tensor, slope: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.save_for_backward(x, width)
        ctx.slope = slope
        return (x >= 0).to(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None]:
        x, width = ctx.saved_tensors
        at_x = gradients[0] * ctx.slope(x / width) / width
        return at_x, -(at_x * x / width).sum() if ctx.needs_input_grad[1] else None, None


def _number(value: float, learnt: bool) -> float | nn.Parameter:
    return nn.Parameter(torch.tensor(float(value))) if learnt else float(value)

"""Other derivatives of the spike, the same for all."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from snn_sparsity.gradient_rules.base import Application, GradientRule, is_snntorch, replaced, spiking_neurons
from snn_sparsity.measure.operations import takes_all_steps
from snn_sparsity.validation import require_choice, require_number

ShapeName = Literal["atan", "sigmoid", "rect", "triangle", "gaussian"]
Sharpness = float | Tensor
Spike = Callable[[Tensor], Tensor]


class Surrogate(nn.Module, ABC):
    """A spike with a derivative of our own: one call a time step, u [N,...] is the potential less its threshold.

    Its values are those of the function it stands for, so that no logit moves. A class of our own because SpikingJelly 2 runs a fused
    kernel for its own surrogates, which reads their class name and alpha and silently ignores a patched ``forward``.

    Args:
        spike: The function that it stands for, from u to spikes.
    """

    def __init__(self, spike: Spike) -> None:
        super().__init__()
        # In a tuple: a module's weights must not appear under another name.
        self._spike = (spike,)
        self.step = 0

    def restart(self, *_: object) -> None:
        """Go back to the first time step: a forward pre-hook of what begins a pass."""
        self.step = 0

    def forward(self, u: Tensor) -> Tensor:
        """Return the spikes; passes that take no gradient leave no trace in the rule."""
        with torch.no_grad():
            spikes = self._spike[0](u)
        if u.requires_grad:
            spikes = _Spikes.apply(u, self.slope(u.detach()), spikes)
        self.step += 1
        return spikes

    @abstractmethod
    def slope(self, u: Tensor) -> Tensor:
        """Return the derivative at u, of its shape; ``self.step`` says which time step it is."""


class _Spikes(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, slope: Tensor, spikes: Tensor) -> Tensor:
        ctx.save_for_backward(slope)
        return spikes.view_as(spikes)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return gradients[0] * slope, None, None


class SurrogateRule(GradientRule):
    """A rule that gives every neuron a surrogate of its own: SpikingJelly's, in either step mode, and snnTorch's."""

    def applied(self, network: nn.Module) -> AbstractContextManager[None]:
        """Swap each neuron's surrogate while the block runs; see :meth:`GradientRule.applied`."""
        return self._applied({}, network)

    def lasting(self) -> Application:
        """Return ``applied`` with the same surrogates in each block; see :meth:`GradientRule.lasting`."""
        return partial(self._applied, {})

    @contextmanager
    def _applied(self, surrogates: dict[str, Surrogate], network: nn.Module) -> Iterator[None]:
        with ExitStack() as changes:
            for path, layer in spiking_neurons(network).items():
                if path not in surrogates:
                    surrogates[path] = self.surrogate(layer.spike_grad if is_snntorch(layer) else layer.surrogate_function)  # type: ignore[arg-type]  # layers of both libraries have no types
                surrogate = surrogates[path]
                changes.enter_context(_swapped(layer, surrogate))
                # Where a call is one step, it is the network's pass that begins anew.
                begins = layer if takes_all_steps(layer) else network
                changes.callback(begins.register_forward_pre_hook(surrogate.restart).remove)
            yield

    @abstractmethod
    def surrogate(self, spike: Spike) -> Surrogate:
        """Return a new surrogate for one neuron layer, with the values of ``spike``."""


@contextmanager
def _swapped(layer: Any, surrogate: Surrogate) -> Iterator[None]:
    if not is_snntorch(layer):
        with replaced(layer, "surrogate_function", surrogate):
            yield
        return
    spike = layer.spike_grad

    def reset(mem: Tensor) -> Tensor:
        with torch.no_grad():
            spikes: Tensor = spike(mem - layer.threshold)
        return spikes

    with ExitStack() as changes:
        changes.enter_context(replaced(layer, "spike_grad", surrogate.forward))
        if hasattr(layer, "mem_reset"):
            # snnTorch asks for the last step's spikes again, detached, to reset by: that is no step.
            changes.enter_context(replaced(layer, "mem_reset", reset))
        yield


def _sigmoid(u: Tensor, alpha: Sharpness) -> Tensor:
    sigma = torch.sigmoid(alpha * u)
    return alpha * sigma * (1 - sigma)


SHAPES: dict[ShapeName, Callable[[Tensor, Sharpness], Tensor]] = {
    "atan": lambda u, alpha: (alpha / 2) / (1 + (math.pi / 2 * alpha * u) ** 2),
    "sigmoid": _sigmoid,
    "rect": lambda u, alpha: alpha * (u.abs() < 0.5 / alpha).to(u),
    "triangle": lambda u, alpha: alpha * (1 - alpha * u.abs()).clamp(min=0),
    "gaussian": lambda u, alpha: alpha / math.sqrt(2 * math.pi) * torch.exp(-((alpha * u) ** 2) / 2),
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

    shape: ShapeName = "atan"
    alpha: float = 2.0

    def __post_init__(self) -> None:
        require_choice("shape", self.shape, SHAPES)
        require_number("alpha", self.alpha, above=0)

    def surrogate(self, spike: Spike) -> Surrogate:
        """Return the spike with this derivative."""
        return _Fixed(spike, SHAPES[self.shape], self.alpha)


class _Fixed(Surrogate):
    def __init__(self, spike: Spike, derivative: Callable[[Tensor, Sharpness], Tensor], alpha: float) -> None:
        super().__init__(spike)
        self.derivative, self.alpha = derivative, alpha

    def slope(self, u: Tensor) -> Tensor:
        return self.derivative(u, self.alpha)

"""What a backward rule is, and the two ways to change a layer for the length of a block."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from spikingjelly.activation_based import neuron
from torch import Tensor, nn

from snn_sparsity.measure.operations import operations
from snn_sparsity.networks.leaky import LeakyNode
from snn_sparsity.validation import InputError

NEURONS = (neuron.IFNode, neuron.LIFNode, neuron.ParametricLIFNode, LeakyNode)
"""What rules know: neurons that fire where their potential reaches the threshold."""
Backward = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From a layer's input, its output and the gradient at its output to the gradient at its input."""


@dataclass(frozen=True)
class GradientRule(ABC):
    """A change of the backward pass alone: ``with rule.applied(network): ...`` leaves every logit as it is, bit for bit.

    Where the derivative is a convention (spikes, ties of a maximum), accuracy under attack must not depend on it: if it does, the
    gradient masks. Rules nest. What a rule gathers over the iterations of an attack lives as long as the block.
    """

    @contextmanager
    def applied(self, network: nn.Module) -> Iterator[None]:
        """Change the network's backward pass while the block runs, and put everything back.

        Args:
            network: Any module around a spiking network in multi-step mode.

        Raises:
            InputError: For a network that the rule cannot handle.
        """
        with ExitStack() as changes:
            for layer in self.concerned(network):
                changes.enter_context(self.changed(layer))
            yield

    def concerned(self, network: nn.Module) -> list[nn.Module]:
        """Return the layers that change: the spiking neurons, unless a rule says otherwise."""
        return spiking_neurons(network)

    @abstractmethod
    def changed(self, layer: nn.Module) -> AbstractContextManager[None]:
        """Change the backward pass of one layer while the block runs."""


def spiking_neurons(network: nn.Module) -> list[nn.Module]:
    """Return the network's spiking neurons.

    Raises:
        InputError: If there is none, or one that is not of ``NEURONS``, in multi-step mode.

    Example:
        >>> spiking_neurons(neuron.IFNode(step_mode="s"))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        snn_sparsity.validation.InputError: neuron 'network' is IFNode in mode 's': rules know IFNode, LIFNode, ...
    """
    layers = operations(network, ["neuron"])
    for layer in layers:
        if not _takes_known_steps(layer.module) or layer.module.step_mode != "m":
            raise InputError(
                f"neuron {layer.path!r} is {type(layer.module).__name__} in mode {layer.module.step_mode!r}: "
                f"rules know {', '.join(kind.__name__ for kind in NEURONS)} in 'm'"
            )
    return [layer.module for layer in layers]


def _takes_known_steps(node: nn.Module) -> bool:
    # A subclass may run its steps in another way; with other steps, such as one that fires integers, a rule would move logits.
    kind = next((kind for kind in NEURONS if isinstance(node, kind)), None)
    steps = ("single_step_functional_forward", "single_step_forward")
    return kind is not None and all(getattr(type(node), step, None) is getattr(kind, step, None) for step in steps)


@contextmanager
def replaced(module: nn.Module, name: str, value: object) -> Iterator[None]:
    """Give a module another attribute, submodule or method while the block runs."""
    own = name in vars(module) or name in module._modules
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        if own:
            setattr(module, name, before)
        else:
            delattr(module, name)


def rerouted(layer: nn.Module, backward: Backward) -> AbstractContextManager[None]:
    """Replace the whole backward pass of a layer while the block runs; its forward pass runs as it is.

    Example:
        >>> layer, x = nn.ReLU(), torch.tensor([-1.0, 2.0], requires_grad=True)
        >>> with rerouted(layer, lambda x, y, gradient: 5 * gradient):
        ...     y = layer(x)
        >>> y.tolist(), torch.autograd.grad(y.sum(), x)[0].tolist()
        ([0.0, 2.0], [5.0, 5.0])
    """
    forward = layer.forward
    return replaced(layer, "forward", lambda x: _Rerouted.apply(x, forward, backward))


class _Rerouted(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, forward: Callable[[Tensor], Tensor], backward: Backward) -> Tensor:
        y = forward(x)
        ctx.save_for_backward(x, y)
        ctx.rule = backward
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        x, y = ctx.saved_tensors
        return ctx.rule(x, y, gradients[0]), None, None

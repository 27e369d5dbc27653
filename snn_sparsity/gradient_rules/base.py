"""What a backward rule is, which neurons rules know, and the two ways to change a layer for the length of a block."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from spikingjelly.activation_based import neuron
from torch import Tensor, nn

from snn_sparsity.measure.operations import MODULE_TYPES, takes_all_steps
from snn_sparsity.networks.leaky import LeakyNode
from snn_sparsity.validation import InputError

NEURONS = (neuron.IFNode, neuron.LIFNode, neuron.ParametricLIFNode, LeakyNode)
"""SpikingJelly's neurons that rules know: those that fire where their potential reaches the threshold."""
Backward = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From a layer's input, its output and the gradient at its output to the gradient at its input."""
Application = Callable[[nn.Module], AbstractContextManager[None]]
"""What changes a network's backward pass while a block runs."""


@dataclass(frozen=True)
class GradientRule(ABC):
    """A change of the backward pass alone: ``with rule.applied(network): ...`` leaves every logit as it is, bit for bit.

    Where the derivative is a convention (spikes, ties of a maximum), accuracy under attack must not depend on it: if it does, the
    gradient masks. Rules nest. What a rule gathers over the iterations of an attack lives as long as the block.
    """

    @abstractmethod
    def applied(self, network: nn.Module) -> AbstractContextManager[None]:
        """Change the network's backward pass while the block runs, and put everything back.

        Args:
            network: Any module around a spiking network.

        Raises:
            InputError: For a network that the rule cannot handle.
        """

    def lasting(self) -> "Application":
        """Return ``applied`` with a memory, for whoever enters it at each pass: a block goes on with what those before it gathered."""
        return self.applied


class LayerRule(GradientRule):
    """A rule that changes layer by layer."""

    @contextmanager
    def applied(self, network: nn.Module) -> Iterator[None]:
        """Change the network's backward pass while the block runs; see :meth:`GradientRule.applied`."""
        with ExitStack() as changes:
            for layer in self.concerned(network):
                changes.enter_context(self.changed(layer))
            yield

    def concerned(self, network: nn.Module) -> list[nn.Module]:
        """Return the layers that change: the spiking neurons, which must take all time steps in one call, unless a rule says otherwise."""
        return multi_step_neurons(network)

    @abstractmethod
    def changed(self, layer: nn.Module) -> AbstractContextManager[None]:
        """Change the backward pass of one layer while the block runs."""


def spiking_neurons(network: nn.Module) -> dict[str, nn.Module]:
    """Return the network's spiking neurons by path: SpikingJelly's in either step mode, and snnTorch's.

    Raises:
        InputError: If there is none, or one that rules do not know.

    Example:
        >>> list(spiking_neurons(nn.Sequential(nn.Flatten(), neuron.IFNode(step_mode="s"))))
        ['1']
        >>> spiking_neurons(neuron.KLIFNode())  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        snn_sparsity.validation.InputError: neuron 'network' is KLIFNode: rules know IFNode, LIFNode, ...
    """
    found = {
        path or "network": module
        for path, module in network.named_modules()
        if isinstance(module, MODULE_TYPES["neuron"]) or is_snntorch(module)
    }
    if not found:
        raise InputError("there is no spiking neuron that rules know: SpikingJelly's or snnTorch's")
    steps = ("single_step_functional_forward", "single_step_forward")
    for path, module in found.items():
        if is_snntorch(module):
            continue
        kind = next((kind for kind in NEURONS if isinstance(module, kind)), None)
        # A subclass may run its steps in another way; with other steps, such as one that fires integers, a rule would move logits.
        if kind is None or any(getattr(type(module), step, None) is not getattr(kind, step, None) for step in steps):
            raise InputError(
                f"neuron {path!r} is {type(module).__name__}: rules know {', '.join(kind.__name__ for kind in NEURONS)}, and snnTorch's"
            )
    return found


def multi_step_neurons(network: nn.Module) -> list[nn.Module]:
    """Return the network's spiking neurons, for a rule that needs all time steps in one call.

    Raises:
        InputError: As :func:`spiking_neurons`, and for one that takes a step a call.
    """
    found = spiking_neurons(network)
    for path, module in found.items():
        if not takes_all_steps(module):
            raise InputError(f"neuron {path!r} takes one time step a call: this rule needs them all in one (step_mode='m')")
    return list(found.values())


def is_snntorch(module: nn.Module) -> bool:
    """Return whether a module is one of snnTorch's neurons, which draw their spikes through ``spike_grad``."""
    # Only a network of snnTorch has imported it.
    return (
        "snntorch" in sys.modules
        and callable(getattr(module, "spike_grad", None))
        and any(kind.__module__.startswith("snntorch.") for kind in type(module).__mro__)
    )


def own_functions(value: Tensor) -> list[str]:
    """Return the names of the autograd functions, written in Python, that a value comes from: derivatives that no rule can replace.

    Example:
        >>> class Spike(torch.autograd.Function):
        ...     @staticmethod
        ...     def forward(ctx, u):
        ...         return (u > 0).to(u)
        >>> own_functions(2 * Spike.apply(torch.ones(1, requires_grad=True)))
        ['Spike']
    """
    names: set[str] = set()
    seen: set[Any] = set()
    left: list[Any] = [value.grad_fn]
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            names.add(type(node).__name__.removesuffix("Backward"))
        left += [following for following, _ in node.next_functions]
    return sorted(names)


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

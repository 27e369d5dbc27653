"""Where the first NaN or infinite number of a training step arises."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


def first_nonfinite(network: nn.Module, loss: Callable[[Tensor], Tensor], spikes: Tensor) -> str | None:
    """Run a training step again, forward and backward, and return what made its first NaN or infinite number.

    Args:
        network: The network in the mode of the step; its parameters and their ``.grad`` stay as they are.
        loss: Maps spikes to the step's loss, through the network.
        spikes: [T,N,C,H,W], the network's input.

    Returns:
        A module's path, with ``(forward)`` or ``(backward)``; ``the input`` or ``the loss``; None if all numbers are finite.

    Example:
        >>> network = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
        >>> _ = nn.init.constant_(network[1].weight, float("nan"))
        >>> first_nonfinite(network, lambda x: network(x).sum(), torch.ones(1, 1))
        '1 (forward)'
    """
    if not _finite(spikes):
        return "the input"
    # Modules that turn finite numbers into others, in the order in which they do.
    forward: list[str] = []
    backward: list[str] = []
    with torch.enable_grad(), ExitStack() as hooks:
        for path, module in network.named_modules():
            for handle in _watch(path or "network", module, forward, backward):
                hooks.callback(handle.remove)
        x = spikes.detach().requires_grad_()
        parameters = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
        # A copy: a module may work in place, which a leaf forbids.
        value = loss(x.clone())
        if forward:
            return f"{forward[0]} (forward)"
        if not _finite(value):
            return "the loss"
        _, *gradients = torch.autograd.grad(value, [x, *parameters.values()], allow_unused=True)
    overflown = [name for name, gradient in zip(parameters, gradients, strict=True) if gradient is not None and not _finite(gradient)]
    # Behind the first bad gradient of an input all others are bad; a bad gradient of a weight alone spoils nothing else.
    found = backward or [name.rpartition(".")[0] or "network" for name in reversed(overflown)]
    return f"{found[0]} (backward)" if found else None


def _watch(path: str, module: nn.Module, forward: list[str], backward: list[str]) -> list[RemovableHandle]:
    def receive(gradient: Tensor) -> None:
        if not _finite(gradient):
            backward.append(path)

    def enter(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not (inputs and isinstance(inputs[0], Tensor) and inputs[0].requires_grad):
            return None
        # A view has the gradient of this module alone, without those of parallel branches.
        x = inputs[0].view_as(inputs[0])
        x.register_hook(receive)
        return (x, *inputs[1:])

    def leave(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        # Modules leave before those they are part of: the first of them is the innermost.
        if not _finite(output) and all(map(_finite, inputs)):
            forward.append(path)

    return [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]


def _finite(value: Any) -> bool:
    return not isinstance(value, Tensor) or bool(value.isfinite().all())

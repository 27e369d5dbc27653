"""What cannot be avoided in a training step: the convolutions alone, and moving everything else through memory once."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from spikingjelly.activation_based import layer, neuron
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd, _MaxPoolNd

FLOAT = 4
COPIED = 2**28

Shapes = dict[str, tuple[nn.Module, Tensor, int]]
"""By module path: the module, its input, and how many elements come out."""


def convolutions(network: nn.Module, spikes: Tensor, dense: bool = False) -> Callable[[], None]:
    """Return an arm: forward and backward of every convolution and linear layer, by itself, on the inputs of a training step.

    The first convolution's input needs no gradient in training. ``dense`` multiplies zeros as well, as PyTorch's own convolution does.
    """
    layers = [(module, x) for module, x, _ in shapes(network, spikes).values() if isinstance(module, (_ConvNd, nn.Linear))]
    inputs = [x.clone().requires_grad_(place > 0) for place, (_, x) in enumerate(layers)]

    def run() -> None:
        for (module, _), x in zip(layers, inputs, strict=True):
            y = layer.Conv2d.forward(module, x) if dense and isinstance(module, layer.Conv2d) else module(x)
            wanted = [module.weight, x] if x.requires_grad else [module.weight]
            torch.autograd.grad(y, wanted, torch.ones_like(y))

    return run


def bytes_of_the_rest(network: nn.Module, spikes: Tensor) -> int:
    """Return the bytes that everything but convolutions must move in a training step, each tensor once per pass over it.

    BatchNorm reads its input twice and writes once, then reads input and gradient twice and writes once; a neuron reads and
    writes, then reads input and gradient and writes; pooling reads and writes with its indices, and back; Adam reads weight,
    gradient and two moments and writes three.
    """
    moved = 0
    for module, x, out in shapes(network, spikes).values():
        if isinstance(module, _BatchNorm):
            moved += (3 + 5) * x.numel()
        elif isinstance(module, neuron.BaseNode):
            moved += (2 + 3) * x.numel()
        elif isinstance(module, (_MaxPoolNd, _AdaptiveAvgPoolNd)):
            moved += 2 * x.numel() + 4 * out
    return FLOAT * (moved + 7 * sum(parameter.numel() for parameter in network.parameters()))


def copy(device: str) -> Callable[[], None]:
    """Return an arm that moves ``COPIED`` bytes through memory, half of them read and half written."""
    source = torch.ones(COPIED // 2 // FLOAT, device=device)
    target = torch.empty_like(source)

    def run() -> None:
        target.copy_(source)

    return run


def shapes(network: nn.Module, spikes: Tensor) -> Shapes:
    """Return what enters and leaves every module without children in one forward pass."""
    found: Shapes = {}
    with watching(network, found), torch.no_grad():
        network(spikes)
    return found


@contextmanager
def watching(network: nn.Module, found: Shapes) -> Iterator[None]:
    """Fill ``found`` while the block runs."""

    def note(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            found[path] = (module, inputs[0].detach(), output.numel())

        return hook

    handles = [module.register_forward_hook(note(path)) for path, module in network.named_modules() if path]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

"""What cannot be avoided in a training step: the convolutions alone, and moving everything else through memory once."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd, _MaxPoolNd

FLOAT, PLACE = 4, 2
COPIED = 2**28

Shapes = dict[str, tuple[nn.Module, Tensor, int]]
"""By module path: the module, its input, and how many elements come out."""


def convolutions(network: nn.Module, spikes: Tensor, dense: bool = False, density: float | None = None) -> Callable[[], None]:
    """Return an arm: forward and backward of every convolution and linear layer, by itself, on the inputs of a training step.

    The first convolution's input needs no gradient in training. ``dense`` multiplies zeros as well, as PyTorch's own convolution does.
    With a ``density`` all inputs behind the first are random spikes of it.
    """
    layers = [(module, x) for module, x, _ in shapes(network, spikes).values() if isinstance(module, (_ConvNd, nn.Linear))]
    inputs = [x.clone() for _, x in layers]
    for x in inputs[1:]:
        if density is not None:
            x.bernoulli_(density)
        x.requires_grad_()

    def run() -> None:
        for (module, _), x in zip(layers, inputs, strict=True):
            y = layer.Conv2d.forward(module, x) if dense and isinstance(module, layer.Conv2d) else module(x)
            wanted = [module.weight, x] if x.requires_grad else [module.weight]
            torch.autograd.grad(y, wanted, torch.ones_like(y))

    return run


class Cost(NamedTuple):
    """What the convolutions and linear layers of a training step cost.

    Attributes:
        multiplications: Of all three passes, padding included.
        bytes: Moved once: inputs, weights and outputs in each pass.
        density: The share of multiplications of a forward pass whose input is not 0.
        on_spikes: Multiplications whose input is not 0; an input's gradient has no zeros to leave out.
        bytes_on_spikes: Moved once, where inputs are lists of what is not 0, each with a place of two bytes.
    """

    multiplications: int
    bytes: int
    density: float
    on_spikes: int
    bytes_on_spikes: int


def cost(network: nn.Module, spikes: Tensor) -> Cost:
    """Count what the convolutions and linear layers of a training step cost, dense and on spikes."""
    layers = [(module, x, out) for module, x, out in shapes(network, spikes).values() if isinstance(module, (_ConvNd, nn.Linear))]
    dense = moved = once = spiking = on_spikes = moved_on_spikes = 0
    for place, (module, x, out) in enumerate(layers):
        weight, present = module.weight, int(x.count_nonzero())
        forward = out * weight[0].numel()
        of_spikes = forward * present // x.numel()
        # The first input's gradient is not wanted in training.
        input_passes = int(place > 0)
        gradient = input_passes * FLOAT * (x.numel() + weight.numel() + out)
        dense += (2 + input_passes) * forward
        moved += 2 * FLOAT * (x.numel() + weight.numel() + out) + gradient
        once, spiking = once + forward, spiking + of_spikes
        on_spikes += 2 * of_spikes + input_passes * forward
        moved_on_spikes += 2 * ((FLOAT + PLACE) * present + FLOAT * (weight.numel() + out)) + gradient
    return Cost(dense, moved, spiking / once, on_spikes, moved_on_spikes)


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
    functional.reset_net(network)
    with watching(network, found), torch.no_grad():
        network(spikes)
    functional.reset_net(network)
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

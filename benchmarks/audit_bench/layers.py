"""Small networks, and the layers that hide their gradients."""

from collections.abc import Callable
from typing import Any

import torch
from spikingjelly.activation_based import functional, layer
from torch import Tensor, nn

from benchmarks.audit_bench.data import CENTRE, CONTRAST
from snn_sparsity.networks.neurons import IFNeuron


class Normalise(nn.Module):
    """The network's own normalisation: pixels to [-1,1]."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x, normalised."""
        return (x - CENTRE) * (2 / CONTRAST)


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Return the function of x."""
        return self.function(x)


def convolutional(activation: Callable[[], nn.Module] = nn.ReLU, width: int = 16) -> nn.Sequential:
    """Return a network of two convolutions, images [N,1,8,8] to logits [N,10]."""
    return nn.Sequential(
        Normalise(),
        nn.Conv2d(1, width, 3, stride=2, padding=1), activation(),
        nn.Conv2d(width, width, 3, padding=1), activation(),
        nn.Flatten(), nn.Linear(16 * width, 10),
    )  # fmt: skip


def spiking(neurons: IFNeuron | None = None, normalised: bool = True, read_out: bool = False, width: int = 12) -> nn.Sequential:
    """Return a spiking network of two convolutions, spikes [T,N,1,8,8] to outputs [T,N,10].

    Args:
        neurons: Recipe of its neurons.
        normalised: Whether its input is the pixel's value, to be normalised.
        read_out: Whether its outputs are spikes, so that its logits are counts.
        width: Channels.
    """
    recipe = neurons or IFNeuron()
    network = nn.Sequential(
        Normalise() if normalised else nn.Identity(),
        layer.Conv2d(1, width, 3, stride=2, padding=1, bias=False), layer.BatchNorm2d(width), recipe.build(),
        layer.Conv2d(width, width, 3, padding=1, bias=False), layer.BatchNorm2d(width), recipe.build(),
        layer.Flatten(), layer.Linear(16 * width, 10), *([recipe.build()] if read_out else []),
    )  # fmt: skip
    functional.set_step_mode(network, "m")
    return network


class Straight(torch.autograd.Function):
    """A value with the derivative of another: ``Straight.apply(x, value)`` is value, and backward the identity in x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor) -> Tensor:
        """Return the value."""
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Pass the gradient to x."""
        return gradients[0], None


def quantised(x: Tensor) -> Tensor:
    """Round to 32 levels: no gradient."""
    return (x * 31).round() / 31


def straight_quantised(x: Tensor) -> Tensor:
    """Round to 32 levels, with a gradient."""
    return Straight.apply(x, quantised(x.detach()))


class Thermometer(nn.Module):
    """Count the thresholds that a pixel exceeds: a comparison has no derivative, and the module blocks the gradient."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x on 33 levels."""
        steps = torch.linspace(0, 1, 33).view(-1, *[1] * x.ndim)[1:]
        return (x.detach() > steps).float().mean(0)


def tied(x: Tensor) -> Tensor:
    """Return x as the larger of two equal numbers: the gradient goes to the one that is cut off."""
    return torch.stack([x.detach(), x]).max(0).values


def shaken(x: Tensor) -> Tensor:
    """Return x with a shake too small to matter, whose derivative is a hundred times that of x, with a random sign."""
    frequency = 2e4
    return x + torch.sin(frequency * x + 2 * torch.pi * torch.rand_like(x)) * (100 / frequency)


def noisy(x: Tensor) -> Tensor:
    """Return x with Gaussian noise of 20 grey levels: drawn anew at each pass."""
    return x + torch.randn_like(x) * (20 / 255)


class Misleading(torch.autograd.Function):
    """The identity, with a derivative whose sign depends on where the pixel stands."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Return x."""
        ctx.save_for_backward(x)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Turn half of the gradient's entries round."""
        (x,) = ctx.saved_tensors
        return gradients[0] * torch.sin(1e4 * x).sign()


class Spike(torch.autograd.Function):
    """A hand-written spike: 1 where u >= 0, with a rectangle of a width as its derivative."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, width: float) -> Tensor:
        """Return the spikes."""
        ctx.save_for_backward(u)
        ctx.width = width
        return (u >= 0).to(u)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Pass the gradient where u is near 0."""
        (u,) = ctx.saved_tensors
        return gradients[0] * (u.abs() < ctx.width / 2).to(u) / ctx.width, None


class HandWritten(nn.Module):
    """A spiking network that no library knows: images [N,1,8,8] to logits, four steps of its own."""

    def __init__(self, width: float, forgets: bool = True) -> None:
        super().__init__()
        self.width, self.forgets = width, forgets
        self.first = nn.Sequential(Normalise(), nn.Conv2d(1, 12, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(12))
        self.second = nn.Sequential(nn.Conv2d(12, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12))
        self.last = nn.Linear(192, 10)
        self.kept: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits; where it does not forget, the next call goes on with what is left of this one."""
        charge = self.first(x)
        kept = self.kept if self.kept is not None and self.kept.shape == charge.shape else torch.zeros_like(charge)
        u, v, logits = kept, torch.zeros(()), torch.zeros(())
        for _ in range(4):
            u, spikes = self._fire(u + charge)
            v, spikes = self._fire(v + self.second(spikes))
            logits = logits + self.last(spikes.flatten(1)) / 4
        self.kept = None if self.forgets else u.detach()
        return logits

    def _fire(self, u: Tensor) -> tuple[Tensor, Tensor]:
        spikes = Spike.apply(u - 1, self.width)
        return u * (1 - spikes.detach()), spikes

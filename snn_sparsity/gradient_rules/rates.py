"""Neurons seen as rates: the backward pass of a whole layer, without recursion through time."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from spikingjelly.activation_based import neuron
from torch import Tensor, nn

from snn_sparsity.gradient_rules.base import LayerRule, replaced, rerouted
from snn_sparsity.networks.leaky import LeakyNode
from snn_sparsity.validation import InputError

SLOW_RISE = 0.2
"""Slope below the knee of a neuron with V_th 1."""


@dataclass(frozen=True)
class RGA(LayerRule):
    """RGA: ``dL/dx[t] = dL/ds[t] h(m)``, with m the mean over time of the neuron's input and h the slope of its firing rate.

    The rate is taken to rise from 0 at m = 0 to 1 at m = 2 V_th, the integrate-and-fire neuron's in a line: ``h = 1/(2 V_th)`` for
    0 <= m <= 2 V_th, else 0. With a leak, ``u[t] = l u[t-1] + x[t]``, it rises with slope 0.2 / V_th up to (1-l) V_th, where a
    constant input first fires, and in a line from there; exactly there both slopes add, as in the code. From Bu et al., CVPR 2023, and its
    code (V_th 1), which SR (Liu et al., ICML 2024) shares; the reset is to 0.

    Example:
        >>> node, x = neuron.IFNode(step_mode="m"), torch.tensor([[0.5, 5.0], [0.5, -1.0]], requires_grad=True)
        >>> with RGA().applied(node):
        ...     torch.autograd.grad(node(x)[1].sum(), x)[0].tolist()
        [[0.0, 0.0], [0.5, 0.5]]
    """

    def changed(self, layer: nn.Module) -> AbstractContextManager[None]:
        """Replace the neuron's backward pass."""
        leak, gain = _dynamics(layer)
        threshold = float(layer.v_threshold)  # type: ignore[arg-type]  # SpikingJelly's layers have no types

        def backward(x: Tensor, spikes: Tensor, gradient: Tensor) -> Tensor:
            return gradient * gain * rate_slope(gain * x.mean(0), threshold, leak)

        return rerouted(layer, backward)


def rate_slope(drive: Tensor, threshold: float, leak: float) -> Tensor:
    """Return the slope h of the firing rate at a mean input.

    Args:
        drive: Mean input over time, of any shape.
        threshold: V_th.
        leak: l, the share of the potential that a step keeps; 1 for integrate-and-fire.

    Example:
        >>> rate_slope(torch.tensor([-0.1, 0.0, 0.25, 0.75, 2.0, 2.1]), threshold=1.0, leak=0.5)
        tensor([0.0000, 0.2000, 0.2000, 0.6000, 0.6000, 0.0000])
    """
    knee, rise = (1 - leak) * threshold, SLOW_RISE / threshold
    steep = (1 - rise * knee) / (2 * threshold - knee)
    slow, fast = (drive >= 0) & (drive <= knee), (drive >= knee) & (drive <= 2 * threshold)
    return rise * slow.to(drive) + steep * fast.to(drive)


def _dynamics(node: Any) -> tuple[float, float]:
    """Return l and g of ``u[t] = l u[t-1] + g x[t]``."""
    if isinstance(node, neuron.IFNode):
        return 1.0, 1.0
    if isinstance(node, LeakyNode):
        return float(node.leak), 1.0
    lost = node.w.sigmoid().item() if isinstance(node, neuron.ParametricLIFNode) else 1 / node.tau
    return 1 - lost, lost if node.decay_input else 1.0


@dataclass(frozen=True)
class BPTR(LayerRule):
    """BPTR: ``dL/dx[t] = dL/ds[t]`` for neurons that fired at any step, 0 for the silent.

    From Ding et al. (SNN-RAT, NeurIPS 2022), as coded beside arXiv 2512.22522.

    Example:
        The first neuron never fires, the second does at step 1.

        >>> node, x = neuron.IFNode(step_mode="m"), torch.tensor([[0.5, 0.9], [0.25, 0.9]], requires_grad=True)
        >>> with BPTR().applied(node):
        ...     torch.autograd.grad(node(x).sum(), x)[0].tolist()
        [[0.0, 1.0], [0.0, 1.0]]
    """

    def changed(self, layer: nn.Module) -> AbstractContextManager[None]:
        """Replace the neuron's backward pass."""
        return rerouted(layer, lambda x, spikes, gradient: gradient * (spikes != 0).any(0))


@dataclass(frozen=True)
class HART(LayerRule):
    """HART: ``dL/dx[t] = mean over t' of dL/ds[t'] SG(u[t'])``, the same at every t, no recursion through time.

    SG is the neuron's own surrogate, or that of a rule applied around this one. From Hao et al., ICLR 2024, as coded beside
    arXiv 2512.22522.

    Example:
        With a rectangle of width 2 and height 1/2, a step at distance 0.25 passes 1/2, one at distance 3 nothing.

        >>> from snn_sparsity.networks import IFNeuron
        >>> node = IFNeuron(surrogate="rect", alpha=0.5).build()
        >>> node.step_mode, x = "m", torch.tensor([[4.0], [0.75]], requires_grad=True)
        >>> with HART().applied(node):
        ...     torch.autograd.grad(node(x).sum(), x)[0].tolist()
        [[0.25], [0.25]]
    """

    def changed(self, layer: nn.Module) -> AbstractContextManager[None]:
        """Run the neuron step by step, each cut off from the last."""
        if getattr(layer, "delayed", False):
            raise InputError(f"HART: {type(layer).__name__} fires by the potential of the step before, from which HART cuts it off")

        def forward(x: Tensor) -> Tensor:
            if x.requires_grad:
                x = x.view_as(x)
                x.register_hook(lambda gradient: gradient.mean(0, keepdim=True).expand_as(gradient))
            spikes = []
            for current in x:
                layer.detach()  # type: ignore[operator]  # SpikingJelly's layers have no types
                spikes.append(layer.single_step_forward(current))  # type: ignore[operator]  # SpikingJelly's layers have no types
            return torch.stack(spikes)

        return replaced(layer, "forward", forward)

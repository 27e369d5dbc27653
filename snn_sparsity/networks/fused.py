"""A spiking layer's loop over time as one compiled function on the CPU, forward and backward, equal to SpikingJelly's bit for bit.

All time steps are computed for a few hundred neurons at a time, so that their history stays in the processor's cache, and the backward
pass computes the potentials again instead of keeping them. On a GPU SpikingJelly's own kernels already do so.
"""

import ctypes
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from snn_sparsity.networks import native

SOURCE = Path(__file__).with_suffix(".c")


class Charge(NamedTuple):
    """How a neuron charges, in C, with SpikingJelly's order of operations.

    Attributes:
        potential: u[t] from x[t], v[t-1], rest and leak.
        to_input: What x[t] receives of u[t]'s gradient g.
        to_state: What v[t-1] receives.
        to_leak: du[t]/dleak, where the leak is learnt.
    """

    potential: str
    to_input: str
    to_state: str
    to_leak: str | None = None


@cache
def compiled(charge: Charge) -> ctypes.CDLL | None:
    """Return ``forward`` and ``backward`` for neurons that charge so; None, after one line in the log, where that cannot be."""
    rules = {"CHARGE": charge.potential, "TO_INPUT": charge.to_input, "TO_STATE": charge.to_state, "TO_LEAK": charge.to_leak}
    # A product and a sum contracted into one rounding would move spikes.
    return native.library(SOURCE, "-ffp-contract=off", *(f"-D{name}=({rule})" for name, rule in rules.items() if rule is not None))


class Dynamics(NamedTuple):
    """What a neuron layer is at a forward pass.

    Attributes:
        library: What ``compiled`` returned.
        threshold: V_th.
        reset: Potential after a spike; None subtracts the threshold.
        detach_reset: Whether the reset is left out of the backward pass.
        alpha: Sharpness of the surrogate ``(alpha/2) / (1 + (pi/2 alpha (u - threshold))^2)``.
        reference: SpikingJelly's function of (x, v, leak), which can be differentiated twice.
    """

    library: ctypes.CDLL
    threshold: float
    reset: float | None
    detach_reset: bool
    alpha: float
    reference: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]

    def call(self, direction: str, tensors: list[Tensor], leak: Tensor) -> None:
        """Run ``forward`` or ``backward`` on x [T,...], v [...] and the other tensors that it takes or fills."""
        arguments: list[Any] = [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]
        arguments += [ctypes.c_longlong(size) for size in (len(tensors[0]), tensors[1].numel())]
        arguments += [ctypes.c_float(number) for number in (leak.item(), self.threshold, self.reset or 0.0)]
        arguments += [int(self.reset is not None), torch.get_num_threads()]
        if direction == "backward":
            arguments += [int(self.detach_reset), ctypes.c_float(math.pi / 2 * self.alpha), ctypes.c_float(self.alpha / 2)]
        self.library[direction](*arguments)


def fused_steps(x: Tensor, v: Tensor, leak: Tensor, dynamics: Dynamics) -> tuple[Tensor, Tensor]:
    """Run a layer over all time steps.

    Args:
        x: [T,...] float32 on the CPU, the layer's input.
        v: [...], its potentials before the first step.
        leak: [], its time constant or what is learnt of it; anything for neurons without one.
        dynamics: The rest.

    Returns:
        Spikes [T,...] and the potentials [...] after the last step.
    """
    spikes, v_last = _Steps.apply(x, v, leak, dynamics)
    return spikes, v_last


class _Steps(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, v: Tensor, leak: Tensor, dynamics: Dynamics) -> tuple[Tensor, Tensor]:
        x = _step_by_step(x)
        v = _laid_out_as(x[0], v)
        spikes, v_last = torch.empty_like(x), torch.empty_like(v)
        dynamics.call("forward", [x, v, spikes, v_last], leak)
        return spikes, v_last

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        *tensors, ctx.dynamics = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, v, leak = ctx.saved_tensors
        if torch.is_grad_enabled():
            # As a graph, for losses that are made of gradients.
            inputs = x, v, leak
            wanted = [tensor for tensor in inputs if tensor.requires_grad]
            with torch.enable_grad():
                outputs = ctx.dynamics.reference(*inputs)
                found = iter(torch.autograd.grad(outputs, wanted, gradients, create_graph=True, allow_unused=True))
            return (*(next(found) if tensor.requires_grad else None for tensor in inputs), None)
        x = _step_by_step(x)
        v, g_v_last = (_laid_out_as(x[0], tensor) for tensor in (v, gradients[1]))
        g_x, g_v, g_leak = torch.empty_like(x), torch.empty_like(v), torch.zeros_like(v)
        ctx.dynamics.call("backward", [x, v, _laid_out_as(x, gradients[0]), g_v_last, g_x, g_v, g_leak], leak)
        return g_x, g_v, g_leak.sum(), None


def _step_by_step(x: Tensor) -> Tensor:
    """Return x [T,...] with the time steps one after the other in memory, each without gaps; channels may lie last there, as they come."""
    by_stride = sorted(range(1, x.ndim), key=x.stride, reverse=True)
    return x if x.permute(0, *by_stride).is_contiguous() else x.contiguous()


def _laid_out_as(model: Tensor, tensor: Tensor) -> Tensor:
    return tensor if tensor.stride() == model.stride() else torch.empty_like(model).copy_(tensor)

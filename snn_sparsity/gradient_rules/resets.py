"""Whether the reset of a neuron is part of the backward pass."""

from contextlib import AbstractContextManager
from dataclasses import dataclass

from torch import nn

from snn_sparsity.gradient_rules.base import LayerRule, is_snntorch, replaced, spiking_neurons
from snn_sparsity.validation import InputError


@dataclass(frozen=True)
class DetachedReset(LayerRule):
    """Leave the reset out of the backward pass, or take it in.

    After a hard reset to v_r, ``v[t] = (1 - s[t]) u[t] + s[t] v_r``; detached, s[t] counts as a constant, so that a spike cuts the
    gradient through time. The paper's SEW-ResNet is trained with it detached, its Spiking-ResNet with it attached.

    Args:
        detached: Whether s[t] counts as a constant in the reset.

    Example:
        Inputs 1.5 and 1: both steps fire. Attached, the first input also decides how much is reset.

        >>> import torch
        >>> from snn_sparsity.networks import IFNeuron
        >>> node = IFNeuron(detach_reset=True).build()
        >>> node.step_mode, x = "m", torch.tensor([[1.5], [1.0]], requires_grad=True)
        >>> with DetachedReset(False).applied(node):
        ...     spikes = node(x)
        >>> [round(g, 3) for g in torch.autograd.grad(spikes[1].sum(), x)[0].flatten().tolist()]
        [-0.433, 1.0]
    """

    detached: bool = False

    def concerned(self, network: nn.Module) -> list[nn.Module]:
        """Return the spiking neurons, in either step mode; snnTorch's have no such switch.

        Raises:
            InputError: For one of snnTorch's.
        """
        found = spiking_neurons(network)
        if path := next((path for path, module in found.items() if is_snntorch(module)), None):
            raise InputError(f"neuron {path!r} is snnTorch's, whose reset is always detached")
        return list(found.values())

    def changed(self, layer: nn.Module) -> AbstractContextManager[None]:
        """Set the neuron's own switch."""
        return replaced(layer, "detach_reset", self.detached)

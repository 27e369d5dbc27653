"""The gradient at the input of every neuron's surrogate, once per time step: what a hook on the surrogate module sees."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from spikingjelly.activation_based.surrogate import MultiLevelSpikeCount
from torch import Tensor, nn

from snn_sparsity.measure.operations import Operation, operations, takes_all_steps
from snn_sparsity.measure.sparsity import TINY

SURROGATE = "surrogate"
"""Kind of what is recorded here, beside the kinds of operations."""


class SurrogateRecord:
    """Zeros, squares and tiny entries of the gradient at one surrogate's input, summed over the time steps of one backward pass."""

    def __init__(self, operation: Operation) -> None:
        self.operation = operation
        self._sums: Tensor | None = None
        self._entries = 0

    @property
    def tag(self) -> str:
        """``surrogate/<NN>_<path>``, with depth and path of the neuron."""
        return f"{SURROGATE}/{self.operation.place}"

    def receive(self, gradient: Tensor) -> None:
        """Take in the gradient [N,...] of one time step."""
        flat = gradient.flatten(1)
        sums = torch.stack([(flat == 0).sum(1), flat.double().square().sum(1), (flat.abs() <= TINY).sum(1)])
        self._sums = sums if self._sums is None else self._sums + sums
        self._entries += flat.shape[1]

    @property
    def values(self) -> tuple[Tensor, Tensor] | None:
        """Share of exact zeros and L2 norm over all time steps, each [N]; None for a neuron that never called its surrogate."""
        return None if self._sums is None else ((self._sums[0] / self._entries).float(), self._sums[1].sqrt().float())

    @property
    def tiny(self) -> Tensor | None:
        """Share of entries of 1e-30 or less over all time steps, [N]; None as above."""
        return None if self._sums is None else (self._sums[2] / self._entries).float()


@contextmanager
def record_surrogates(network: nn.Module) -> Iterator[list[SurrogateRecord]]:
    """Record the gradient at the input of each neuron's surrogate, ``dL/d(u[t] - V_th)`` through the spike of step t alone.

    The neuron's own input gathers what later steps send back through the membrane: it can be dense where the surrogate's is sparse.
    Published code hooks modules without children, which in SpikingJelly 0.0.0.0.14 are the surrogates, not the neurons (arXiv
    2509.23762, Figures 1 and 3). No logit moves.

    Args:
        network: Takes [T,N,...]. Run it once, forward and backward, inside the block.

    Yields:
        One record for each neuron, complete after the backward pass.

    Example:
        Two steps with reset left out of the backward pass: the loss sees the second spike alone. The surrogate of the first step gets
        nothing, the neuron's first input does, through the membrane.

        >>> import torch
        >>> from snn_sparsity.networks import IFNeuron
        >>> node, x = IFNeuron().build(), torch.tensor([[[0.25]], [[0.25]]], requires_grad=True)
        >>> node.step_mode = "m"
        >>> with record_surrogates(node) as (record,):
        ...     gradient = torch.autograd.grad(node(x)[1].sum(), x)[0]
        >>> record.tag, record.values[0].tolist(), (gradient == 0).float().mean().item()
        ('surrogate/01_network', [0.5], 0.0)
    """
    records = [SurrogateRecord(operation) for operation in operations(network, ["neuron"])]
    with ExitStack() as changes:
        for record in records:
            spike = getattr(record.operation.module, "surrogate_function", None)
            # I-LIF asks for its own class, and never calls it.
            if isinstance(spike, nn.Module) and not isinstance(spike, MultiLevelSpikeCount):
                changes.enter_context(_watched(record.operation.module, record.receive))
        yield records


@contextmanager
def _watched(node: Any, receive: Callable[[Tensor], None]) -> Iterator[None]:
    """Let a neuron's forward call a surrogate that is looked at; whoever hooks the neuron finds its own one."""
    forward, own = node.forward, "forward" in vars(node)

    def watched(x: Tensor, *others: Any) -> Any:
        one_step = x.shape[1:] if takes_all_steps(node) else x.shape

        def receive_steps(gradient: Tensor) -> None:
            # Some neurons, such as PSN, ask once for all time steps.
            for step in gradient.reshape(-1, *one_step):
                receive(step)

        surrogate = node.surrogate_function
        node.surrogate_function = _Watched(surrogate, receive_steps)
        try:
            return forward(x, *others)
        finally:
            node.surrogate_function = surrogate

    node.forward = watched
    try:
        yield
    finally:
        if own:
            node.forward = forward
        else:
            del node.forward


class _Watched(nn.Module):
    """A surrogate with a hook at its input; of a class of its own, so that no fused kernel passes it by."""

    def __init__(self, surrogate: nn.Module, receive: Callable[[Tensor], None]) -> None:
        super().__init__()
        self.surrogate, self.receive = surrogate, receive

    def forward(self, u: Tensor) -> Tensor:
        """Return the spikes of u [N,...]."""
        if u.requires_grad:
            u = u.view_as(u)
            u.register_hook(self.receive)
        spikes: Tensor = self.surrogate(u)
        return spikes

"""Record the gradient at the input of every operation, reduced to a few numbers inside the hook."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Generic, TypeVar

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from snn_sparsity.measure.layout import Layout
from snn_sparsity.measure.operations import INPUT, KINDS, Kind, Operation, holds_state, operations
from snn_sparsity.measure.sparsity import l2_norm, zero_fraction
from snn_sparsity.validation import InputError

Statistic = TypeVar("Statistic")


class GradientRecord(Generic[Statistic]):
    """Statistics of one backward pass, filled as it runs.

    Attributes:
        operations: What is recorded, the network's input first.
        values: The statistic of each operation, by its path.
    """

    def __init__(self, listed: Sequence[Operation], layout: Layout | None = None) -> None:
        self.operations = list(listed)
        self.layout = layout
        self.values: dict[str, Statistic] = {}
        self.forwards = {operation.path: 0 for operation in listed}

    def check_complete(self) -> None:
        """Raise InputError, naming the operation, unless each ran once and received one gradient."""
        for operation in self.operations:
            runs = self.forwards[operation.path]
            if runs != 1:
                raise InputError(
                    f"operation {operation.path!r} ran {runs} times in one forward pass: it must run exactly once, all time steps together"
                )
            if operation.path not in self.values:
                raise InputError(f"no gradient reached operation {operation.path!r}: the loss does not depend on it")


def zeros_and_norm(operation: Operation, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Return the fraction of exact zeros and the L2 norm per sample, each [N], of a time-first gradient [T,N,...]."""
    return zero_fraction(gradient, batch_dim=1), l2_norm(gradient, batch_dim=1)


@contextmanager
def record_gradients(
    network: nn.Module,
    kinds: Sequence[Kind] = KINDS,
    reduce: Callable[[Operation, Tensor], Any] = zeros_and_norm,
    layout: Layout | None = None,
) -> Iterator[GradientRecord[Any]]:
    """Record what flows out of each operation towards its input, from that operation alone, during one backward pass.

    A forward pre-hook replaces the operation's input x by ``x.view_as(x)`` and hooks that tensor, so gradients of parallel
    branches stay apart. Module backward hooks would fail on Spiking-ResNet, whose residual addition works in place.

    Args:
        network: Its input must require a gradient. Run it once, forward and backward, inside the block.
        kinds: Kinds of operations to record, besides the network's input.
        reduce: Called inside the hook with the operation and its gradient [T,N,...]; what it returns is kept.
        layout: Where time steps and images are; None for a network that takes [T,N,...]. Of one that takes images, operations that do
            not run are left out: modules beside the network proper are common there.

    Yields:
        The record; its values are complete after the block.

    Raises:
        InputError: Naming the operation, if it ran or was reached other than once, if a neuron was not reset, or if it is not known
            where in its input the images are.

    Example:
        >>> import torch
        >>> network = nn.Sequential(nn.Linear(2, 1, bias=False))
        >>> x = torch.ones(1, 3, 2, requires_grad=True)
        >>> with record_gradients(network, ["linear"]) as record:
        ...     torch.autograd.grad(network(x).sum(), x)[0].shape
        torch.Size([1, 3, 2])
        >>> [operation.tag for operation in record.operations], record.values["0"][0].tolist()
        (['input/00_input', 'linear/01_0'], [0.0, 0.0, 0.0])
    """
    listed = [Operation(INPUT, INPUT, 0, network), *operations(network, kinds)]
    record: GradientRecord[Any] = GradientRecord(listed, layout)
    with ExitStack() as hooks:
        for operation in listed:
            handle = _watch_input(operation, record, reduce)
            hooks.callback(handle.remove)
        yield record
    if layout is not None and layout.steps is None:
        record.operations = [operation for operation in listed if record.forwards[operation.path]]
    record.check_complete()


def _watch_input(operation: Operation, record: GradientRecord[Any], reduce: Callable[[Operation, Tensor], Any]) -> RemovableHandle:
    def receive(gradient: Tensor) -> None:
        assert record.layout is not None
        record.values[operation.path] = reduce(operation, record.layout.time_first(operation, gradient))

    def enter(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        record.forwards[operation.path] += 1
        if record.forwards[operation.path] == 1 and holds_state(module):
            raise InputError(
                f"neuron {operation.path!r} still holds the state of an earlier forward pass: the network's forward misses its reset"
            )
        x, *rest = inputs
        if not x.requires_grad:
            raise InputError(f"the input of operation {operation.path!r} requires no gradient: none can be recorded")
        if record.layout is None:
            record.layout = Layout(module, images=x.shape[1], steps=x.shape[0])
        record.layout.time_first(operation, x)  # refused before the backward pass, where errors are hard to read
        x = x.view_as(x)
        x.register_hook(receive)
        return (x, *rest)

    return operation.module.register_forward_pre_hook(enter)

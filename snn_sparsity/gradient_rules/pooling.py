"""Who gets a window's gradient in max pooling."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from snn_sparsity.gradient_rules.base import GradientRule, rerouted
from snn_sparsity.measure.windows import Window, tie_shared_gradient, unfolded
from snn_sparsity.validation import InputError, require_choice, require_number

Share = Literal["ties", "softmax", "uniform"]
SHARES: tuple[Share, ...] = ("ties", "softmax", "uniform")


@dataclass(frozen=True)
class PoolGradient(GradientRule):
    """Pool-BPDA: max pooling forward, but a window's gradient goes to more than PyTorch's first maximum.

    Spikes tie nearly everywhere. In a window without spikes one more spike at *any* position raises the maximum, yet PyTorch sends
    the gradient to the first alone; where several spike, to one of them.

    | share | a position's part of its window's gradient |
    |---|---|
    | ``ties`` | 1 / number of maxima, for each maximum |
    | ``softmax`` | ``exp(x/temperature)`` over the window's sum of these |
    | ``uniform`` | 1 / kernel area: average pooling's; what falls on padding is lost |

    It concerns ``MaxPool2d`` (PyTorch's and SpikingJelly's); a network without any stays as it is.

    Args:
        share: One of the table.
        temperature: Of ``softmax``, above 0, in the units of x.

    Raises:
        InputError: For another share, a temperature not above 0, or, in use, a window that is not square.

    Example:
        >>> pool, x = nn.MaxPool2d(2), torch.tensor([[[1.0, 1.0], [0.0, 1.0]]], requires_grad=True)
        >>> with PoolGradient("ties").applied(pool):
        ...     torch.autograd.grad(3 * pool(x).sum(), x)[0].tolist()
        [[[1.0, 1.0], [0.0, 1.0]]]
    """

    share: Share = "ties"
    temperature: float = 0.5

    def __post_init__(self) -> None:
        require_choice("share", self.share, SHARES)
        require_number("temperature", self.temperature, above=0)

    def concerned(self, network: nn.Module) -> list[nn.Module]:
        """Return the max poolings."""
        return [module for module in network.modules() if isinstance(module, nn.MaxPool2d)]

    def changed(self, layer: nn.Module) -> AbstractContextManager[None]:
        """Replace the pooling's backward pass."""
        window = Window.of(layer)
        if layer.ceil_mode or layer.return_indices:
            raise InputError(f"{layer} has ceil_mode or return_indices: its gradient cannot be shared")
        return rerouted(layer, lambda x, y, gradient: self.shared(x, gradient, window))

    def shared(self, x: Tensor, gradient: Tensor, window: Window) -> Tensor:
        """Return the gradient at the input x [...,C,H,W] from that at the output, [...,C,h,w]."""
        if self.share == "ties":
            return tie_shared_gradient(x, gradient, window)
        with torch.enable_grad():
            maps = x.detach().reshape(-1, *x.shape[-3:]).requires_grad_()
            columns = unfolded(maps, window)
        parts = self._parts(columns.detach()) * gradient.reshape(*columns.shape[:2], 1, -1)
        # Unfolding copies each position into its windows; its derivative adds their parts up again.
        return torch.autograd.grad(columns, maps, parts)[0].view_as(x)

    def _parts(self, columns: Tensor) -> Tensor:
        if self.share == "softmax":
            return (columns / self.temperature).softmax(2)
        return torch.full_like(columns, 1 / columns.shape[2])

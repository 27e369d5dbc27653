"""Who gets a window's gradient in pooling."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snn_sparsity.gradient_rules.base import LayerRule, rerouted
from snn_sparsity.measure.windows import Window, tie_shared_gradient, unfolded
from snn_sparsity.validation import InputError, require_choice, require_number

Share = Literal["own", "first", "random", "ties", "softmax", "uniform"]
SHARES: tuple[Share, ...] = ("own", "first", "random", "ties", "softmax", "uniform")
LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True)
class PoolGradient(LayerRule):
    """Pool-BPDA: max or average pooling forward, and a backward pass that is dense or sparse as one likes.

    Spikes tie nearly everywhere. In a window without spikes one more spike at *any* position raises the maximum, yet PyTorch sends
    the gradient to the first alone; where several spike, to one of them. Under average pooling the same shares make a dense gradient
    sparse: what follows from the zeros can be told from what follows from the forward pass.

    | share | a position's part of its window's gradient |
    |---|---|
    | ``own`` | as PyTorch has it: nothing changes |
    | ``first`` | all of it to the first maximum: max pooling's own, to the bit |
    | ``random`` | all of it to one of the maxima, drawn once for each channel and window: ``seed`` |
    | ``ties`` | 1 / number of maxima, for each maximum |
    | ``softmax`` | ``exp(x/temperature)`` over the window's sum of these |
    | ``uniform`` | 1 / kernel area: average pooling's own, to the bit; what falls on padding is lost |

    It concerns ``MaxPool2d`` and ``AvgPool2d`` (PyTorch's and SpikingJelly's), not a global pooling such as ``AdaptiveAvgPool2d``; a
    network without any stays as it is.

    Args:
        share: One of the table.
        temperature: Of ``softmax``, above 0, in the units of x.
        seed: Of ``random``, at least 0: the same draws in every pass, for every image and time step.

    Raises:
        InputError: For another share, a temperature not above 0, or, in use, a window that is not square.

    Example:
        >>> pool, x = nn.MaxPool2d(2), torch.tensor([[[1.0, 1.0], [0.0, 1.0]]], requires_grad=True)
        >>> with PoolGradient("ties").applied(pool):
        ...     torch.autograd.grad(3 * pool(x).sum(), x)[0].tolist()
        [[[1.0, 1.0], [0.0, 1.0]]]
        >>> pool = nn.AvgPool2d(2)
        >>> with PoolGradient("first").applied(pool):
        ...     torch.autograd.grad(3 * pool(x).sum(), x)[0].tolist()
        [[[3.0, 0.0], [0.0, 0.0]]]
    """

    share: Share = "ties"
    temperature: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        require_choice("share", self.share, SHARES)
        require_number("temperature", self.temperature, above=0)
        require_number("seed", self.seed, at_least=0, at_most=LARGEST_SEED, whole=True)

    def concerned(self, network: nn.Module) -> list[nn.Module]:
        """Return the max and average poolings; none for ``own``."""
        if self.share == "own":
            return []
        return [module for module in network.modules() if isinstance(module, (nn.MaxPool2d, nn.AvgPool2d))]

    def changed(self, layer: nn.Module) -> AbstractContextManager[None]:
        """Replace the pooling's backward pass."""
        window = Window.of(layer)
        if layer.ceil_mode or getattr(layer, "return_indices", False):
            raise InputError(f"{layer} has ceil_mode or return_indices: its gradient cannot be shared")
        uneven = getattr(layer, "divisor_override", None) or (window.padding and not getattr(layer, "count_include_pad", True))
        if self.share == "uniform" and uneven:
            raise InputError(f"{layer} has count_include_pad=False or a divisor_override: its own gradient is not 1 / kernel area")
        return rerouted(layer, lambda x, y, gradient: self.shared(x, gradient, window))

    def shared(self, x: Tensor, gradient: Tensor, window: Window) -> Tensor:
        """Return the gradient at the input x [...,C,H,W] from that at the output, [...,C,h,w]."""
        if self.share == "ties":
            return tie_shared_gradient(x, gradient, window)
        with torch.enable_grad():
            maps = x.detach().reshape(-1, *x.shape[-3:]).requires_grad_()
            view = VIEWS.get(self.share, unfolded)(maps, window)
        if self.share in VIEWS:
            parts = gradient.reshape(view.shape)
        else:
            # Unfolding copies each position into its windows; its derivative adds their parts up again.
            parts = self._parts(view.detach()) * gradient.reshape(*view.shape[:2], 1, -1)
        return torch.autograd.grad(view, maps, parts)[0].view_as(x)

    def _parts(self, columns: Tensor) -> Tensor:
        if self.share == "softmax":
            return (columns / self.temperature).softmax(2)
        # One draw for each channel and window, whatever the batch: attack and training see one fixed derivative.
        draws = _draws(columns.shape[1:], self.seed, columns.device)
        winners = draws.masked_fill(columns != columns.amax(2, keepdim=True), -1.0).argmax(2, keepdim=True)
        return torch.zeros_like(columns).scatter_(2, winners, 1.0)


@lru_cache(maxsize=8)
def _draws(shape: torch.Size, seed: int, device: torch.device) -> Tensor:
    """Return the same numbers on any device; kept, as what is captured as a CUDA graph cannot fetch them from the host."""
    # Kept for passes of both kinds: what is made in inference mode no gradient may go through.
    with torch.inference_mode(False):
        return torch.rand(shape, generator=torch.Generator().manual_seed(seed)).to(device)


VIEWS: dict[Share, Callable[[Tensor, Window], Tensor]] = {
    "first": lambda maps, window: F.max_pool2d(maps, *window[:3], ceil_mode=window.ceil_mode),
    "uniform": lambda maps, window: F.avg_pool2d(maps, *window),
}
"""Poolings whose own derivative is a share."""

"""Which inputs a max pooling lets gradients through to, and what ties have to do with it."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.pooling import _AvgPoolNd, _MaxPoolNd

from snn_sparsity.validation import InputError


class Window(NamedTuple):
    """Shape of a square pooling window.

    Attributes:
        kernel: Width.
        stride: Step.
        padding: Width of the border, which never wins.
    """

    kernel: int
    stride: int
    padding: int

    @classmethod
    def of(cls, module: nn.Module) -> "Window":
        """Return the window of a max or average pooling.

        Raises:
            InputError: If it is not square, or dilated.
        """
        assert isinstance(module, (_MaxPoolNd, _AvgPoolNd))
        settings: tuple[Any, ...] = (module.kernel_size, module.stride, module.padding, getattr(module, "dilation", 1))
        sizes = [setting if isinstance(setting, int) else setting[0] for setting in settings]
        if any(not isinstance(setting, int) and len(set(setting)) > 1 for setting in settings) or sizes[3] != 1:
            raise InputError(f"{module} is not square: its windows cannot be told apart")
        return cls(*sizes[:3])


def selected(x: Tensor, window: Window) -> Tensor:
    """Return which positions win at least one window: PyTorch lets a window's gradient through to its first maximum alone.

    Args:
        x: [...,C,H,W].
        window: The pooling.

    Returns:
        Bool, of the shape of x.

    Example:
        >>> selected(torch.tensor([[[1.0, 1.0], [0.0, 1.0]]]), Window(2, 2, 0)).int().tolist()
        [[[1, 0], [0, 0]]]
    """
    maps = x.flatten(0, -4) if x.ndim > 4 else x
    _, winners = F.max_pool2d(maps, *window, return_indices=True)
    won = torch.zeros_like(maps, dtype=torch.bool).flatten(-2)
    return won.scatter_(-1, winners.flatten(-2), value=True).view_as(x)


def spikes_per_window(x: Tensor, window: Window) -> Tensor:
    """Return the number of positive inputs in each window, [...,C,h,w].

    Example:
        >>> spikes_per_window(torch.tensor([[[1.0, 1.0], [0.0, 1.0]]]), Window(2, 2, 0)).item()
        3.0
    """
    maps = x.flatten(0, -4) if x.ndim > 4 else x
    counts = F.avg_pool2d((maps > 0).float(), *window, divisor_override=1)
    return counts.view(*x.shape[:-2], *counts.shape[-2:])


def tie_shared_gradient(x: Tensor, gradient: Tensor, window: Window) -> Tensor:
    """Return the gradient at a max pooling's input if every maximum of a window had an equal share of the window's gradient.

    Args:
        x: [...,C,H,W], the pooling's input.
        gradient: [...,C,h,w], the gradient at its output.
        window: The pooling.

    Returns:
        Of the shape of x. The forward pass is the same: where maxima tie, this is as good a derivative as PyTorch's.

    Example:
        >>> tie_shared_gradient(torch.tensor([[[1.0, 1.0], [0.0, 1.0]]]), torch.tensor([[[3.0]]]), Window(2, 2, 0)).tolist()
        [[[1.0, 1.0], [0.0, 1.0]]]
    """
    height, width = x.shape[-2:]
    maps = x.reshape(-1, 1, height, width)
    padded = F.pad(maps, [window.padding] * 4, value=float("-inf"))
    columns = F.unfold(padded, window.kernel, stride=window.stride)
    winners = (columns == columns.amax(1, keepdim=True)).to(x.dtype)
    shares = winners / winners.sum(1, keepdim=True) * gradient.reshape(len(maps), 1, -1)
    size = (height + 2 * window.padding, width + 2 * window.padding)
    whole = F.fold(shares, size, window.kernel, stride=window.stride)
    inner = whole[..., window.padding : window.padding + height, window.padding : window.padding + width]
    return inner.reshape(x.shape)

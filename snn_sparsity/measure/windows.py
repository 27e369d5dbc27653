"""Geometry of kernels: what each window of a convolution or pooling reads, and whom a max pooling lets gradients through to."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snn_sparsity.validation import InputError


def positions(size: int, kernel: int, stride: int, padding: int | str, dilation: int, ceil_mode: bool = False) -> Tensor:
    """Return the position that each tap reads for each output along one axis, [outputs, taps]; outside the map is padding.

    With ``ceil_mode``, as poolings have it, what is left behind the last whole window makes one more, if that begins before the map's end.

    Raises:
        InputError: If the kernel does not fit into the padded input.

    Example:
        >>> positions(size=2, kernel=3, stride=1, padding=1, dilation=1).tolist()
        [[-1, 0, 1], [0, 1, 2]]
    """
    reach = dilation * (kernel - 1)
    # Where "same" cannot split evenly, torch puts the larger half behind.
    before = {"valid": 0, "same": reach // 2}[padding] if isinstance(padding, str) else padding
    after = reach - before if padding == "same" else before
    outputs = (size + before + after - reach - 1 + (stride - 1 if ceil_mode else 0)) // stride + 1
    if ceil_mode and (outputs - 1) * stride >= size + before:
        outputs -= 1
    if outputs < 1:
        raise InputError(f"size={size} is too small for a kernel of {kernel}, dilation {dilation}, padding {padding}: give a larger image")
    return torch.arange(outputs)[:, None] * stride - before + torch.arange(kernel) * dilation


class Reach(NamedTuple):
    """What a kernel sees of a map along one axis.

    Attributes:
        outputs: Positions of the output.
        first: The first tap that meets the map at some output.
        end: The tap behind the last.
    """

    outputs: int
    first: int
    end: int


def reach(length: int, kernel: int, stride: int, padding: int) -> Reach:
    """Return in whole numbers what :func:`positions` has in it, without padding on one side only and without dilation.

    Where no tap meets the map, all taps are returned.

    Example:
        A padded 3x3 kernel on a map of 1x1: only its middle meets anything but padding.

        >>> reach(1, kernel=3, stride=1, padding=1)
        Reach(outputs=1, first=1, end=2)
    """
    outputs = (length + 2 * padding - kernel) // stride + 1
    meets = []
    for tap in range(kernel):
        output = max(0, -((tap - padding) // stride))  # the first at which the tap is not before the map
        if output < outputs and output * stride - padding + tap < length:
            meets.append(tap)
    return Reach(outputs, meets[0], meets[-1] + 1) if meets else Reach(outputs, 0, kernel)


def reachable_taps(
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int] | str,
    dilation: Sequence[int],
) -> Tensor:
    """Return which taps of a zero-padded kernel meet a real input anywhere in the map.

    Along one axis tap j is reachable iff an output o has ``0 <= o stride - padding + j dilation < size``; a tap of the kernel
    is reachable iff it is so along every axis.

    Args:
        size: (H, W) of the convolution's input, in pixels.
        kernel: (kH, kW).
        stride: One per axis.
        padding: One per axis, or torch's ``valid`` or ``same``.
        dilation: One per axis.

    Returns:
        [kH,kW] bool.

    Raises:
        InputError: If the kernel does not fit into the padded input.

    Example:
        >>> reachable_taps((1, 2), (3, 3), (1, 1), (1, 1), (1, 1)).int().tolist()
        [[0, 0, 0], [1, 1, 1], [0, 0, 0]]
    """
    paddings: Sequence[int | str] = [padding] * len(size) if isinstance(padding, str) else padding
    axes = [positions(*axis) for axis in zip(size, kernel, stride, paddings, dilation, strict=True)]
    rows, columns = (((reads >= 0) & (reads < length)).any(0) for reads, length in zip(axes, size, strict=True))
    return rows[:, None] & columns


def positions_read(module: nn.Module, size: Sequence[int]) -> Tensor | None:
    """Return which positions of its input a convolution or pooling reads at all, by shape alone.

    Args:
        module: A strided operation may skip some: a 1x1 convolution of stride 2 reads a quarter.
        size: (H, W) of its input, in pixels.

    Returns:
        [H,W] bool; None for a module without a kernel on maps, and for a transposed convolution.

    Example:
        >>> positions_read(nn.Conv2d(1, 1, 1, stride=2), (2, 3)).int().tolist()
        [[1, 0, 1], [0, 0, 0]]
    """
    if not isinstance(module, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)):
        return None
    settings = [_per_axis(getattr(module, name, 1)) for name in ("kernel_size", "stride", "padding", "dilation")]
    ceil_mode = getattr(module, "ceil_mode", False)
    masks = []
    for length, kernel, stride, padding, dilation in zip(size, *settings, strict=True):
        reads = positions(length, kernel, stride, padding, dilation, ceil_mode)
        masks.append(torch.isin(torch.arange(length), reads))
    rows, columns = masks
    return rows[:, None] & columns


def _per_axis(setting: int | str | Sequence[int]) -> tuple[Any, Any]:
    """Return a setting of a module on maps for rows and for columns."""
    first, *others = (setting,) if isinstance(setting, (int, str)) else setting
    return first, others[0] if others else first


class Window(NamedTuple):
    """Shape of a square pooling window.

    Attributes:
        kernel: Width.
        stride: Step.
        padding: Width of the border, which never wins.
        ceil_mode: Whether a part of a window behind the last whole one is a window too.
    """

    kernel: int
    stride: int
    padding: int
    ceil_mode: bool = False

    @classmethod
    def of(cls, module: nn.Module) -> "Window":
        """Return the window of a max or average pooling.

        Raises:
            InputError: If it is not square, or dilated, or not of maps.
        """
        if isinstance(module, (nn.MaxPool2d, nn.AvgPool2d)):
            sizes = [_per_axis(size) for size in (module.kernel_size, module.stride, module.padding, getattr(module, "dilation", 1))]
            kernel, stride, padding, dilation = (rows for rows, _ in sizes)
            if dilation == 1 and all(rows == columns for rows, columns in sizes):
                return cls(kernel, stride, padding, module.ceil_mode)
        raise InputError(f"{module} is not square on maps, without dilation: its windows cannot be told apart")


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
    _, winners = F.max_pool2d(maps, *window[:3], ceil_mode=window.ceil_mode, return_indices=True)
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
    with torch.enable_grad():
        maps = x.detach().reshape(-1, *x.shape[-3:]).requires_grad_()
        columns = unfolded(maps, window)
    winners = (columns == columns.amax(2, keepdim=True)).to(x.dtype)
    shares = winners / winners.sum(2, keepdim=True) * gradient.reshape(*columns.shape[:2], 1, -1)
    # Unfolding copies each position into its windows; its derivative adds their shares up again.
    return torch.autograd.grad(columns, maps, shares)[0].view_as(x)


def unfolded(maps: Tensor, window: Window) -> Tensor:
    """Return each window's inputs, [N,C,K,L]: K positions of L windows, -inf on the padding.

    Args:
        maps: [N,C,H,W].
        window: The pooling.

    Example:
        >>> unfolded(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), Window(2, 2, 0)).flatten().tolist()
        [1.0, 2.0, 3.0, 4.0]
    """
    height, width = (_behind(length, window) for length in maps.shape[-2:])
    padded = F.pad(maps, [window.padding, width, window.padding, height], value=float("-inf"))
    return F.unfold(padded, window.kernel, stride=window.stride).unflatten(1, (maps.shape[1], -1))


def _behind(length: int, window: Window) -> int:
    """Return how far the last window reaches behind the map."""
    last = int(positions(length, window.kernel, window.stride, window.padding, 1, window.ceil_mode)[-1, -1])
    return max(0, last + 1 - length)

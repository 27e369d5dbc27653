"""Geometry of kernels: what each window of a convolution or pooling reads, and whom a max pooling lets gradients through to."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.pooling import _AvgPoolNd, _MaxPoolNd

from snn_sparsity.validation import InputError


def positions(size: int, kernel: int, stride: int, padding: int | str, dilation: int) -> Tensor:
    """Return the position that each tap reads for each output along one axis, [outputs, taps]; outside the map is padding.

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
    outputs = (size + before + after - reach - 1) // stride + 1
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
    if not isinstance(module, (_ConvNd, _MaxPoolNd, _AvgPoolNd)) or isinstance(module, _ConvTransposeNd):
        return None
    settings = [getattr(module, name, 1) for name in ("kernel_size", "stride", "padding", "dilation")]
    if any(isinstance(setting, tuple) and len(setting) != len(size) for setting in settings):
        return None
    per_axis = [setting if isinstance(setting, tuple) else (setting,) * len(size) for setting in settings]
    masks = []
    for length, *axis in zip(size, *per_axis, strict=True):
        reads = positions(length, *axis)
        masks.append(torch.isin(torch.arange(length), reads))
    rows, columns = masks
    return rows[:, None] & columns


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
    padded = F.pad(maps, [window.padding] * 4, value=float("-inf"))
    return F.unfold(padded, window.kernel, stride=window.stride).unflatten(1, (maps.shape[1], -1))

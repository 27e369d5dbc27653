"""A convolution that skips the kernel taps which only ever multiply padding."""

from itertools import product
from typing import NamedTuple

import torch
import torch.nn.functional as F
from spikingjelly.activation_based import layer
from torch import Tensor, nn

FEW = 4
"""Up to so many output positions are computed one by one: a map of 2x2."""


class Window(NamedTuple):
    """What one output sees along one axis: a part of the map, through a part of the kernel."""

    seen: slice
    taps: slice


class TapConv2d(layer.Conv2d):  # type: ignore[misc]  # SpikingJelly ships no types
    """SpikingJelly's ``Conv2d``; where the output map is at most 2x2, each output is a linear layer of the inputs that it really sees.

    Outputs and gradients are those of the convolution (up to rounding), taps that reach no input get gradient 0, and state-dict
    shapes stay. Of the products of a padded 3x3 kernel, one in nine is real on a 1x1 map and four in nine on a 2x2 map: stages 3
    and 4 of a ResNet with ImageNet stem at 32x32.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Convolve [T,N,C,H,W] in multi-step mode, [N,C,H,W] in single-step mode."""
        if isinstance(self.padding, str) or self.dilation != (1, 1) or self.groups != 1 or self.padding_mode != "zeros":
            return super().forward(x)
        rows, columns = map(windows, x.shape[-2:], self.kernel_size, self.stride, self.padding)
        outputs = len(rows) * len(columns)
        # A 1x1 kernel has no padding to skip; on a 1x1 map it is a linear layer all the same.
        if outputs == 1 or (1 < outputs <= FEW and self.kernel_size != (1, 1)):
            return self._one_by_one(x, rows, columns)
        return super().forward(x)

    def _one_by_one(self, x: Tensor, rows: list[Window], columns: list[Window]) -> Tensor:
        top, left = (min(window.taps.start for window in axis) for axis in (rows, columns))
        bottom, right = (max(window.taps.stop for window in axis) for axis in (rows, columns))
        # Only what is reachable, and channels last: windows are then made of long runs of memory.
        kernel = self.weight[:, :, top:bottom, left:right].permute(2, 3, 0, 1).contiguous()
        pixels = x.movedim(-3, -1)
        outputs = []
        for (seen_rows, row_taps), (seen_columns, column_taps) in product(rows, columns):
            taps = kernel[moved(row_taps, top), moved(column_taps, left)].flatten(0, 1).transpose(0, 1).flatten(1)
            outputs.append(F.linear(pixels[..., seen_rows, seen_columns, :].flatten(-3), taps, self.bias))
        return torch.stack(outputs, -1).unflatten(-1, (len(rows), len(columns)))


def windows(length: int, kernel: int, stride: int, padding: int) -> list[Window]:
    """Return what each output position sees along one axis.

    Example:
        >>> windows(2, kernel=3, stride=1, padding=1)
        [Window(seen=slice(0, 2, None), taps=slice(1, 3, None)), Window(seen=slice(0, 2, None), taps=slice(0, 2, None))]
    """
    found = []
    for start in range(-padding, length + padding - kernel + 1, stride):
        first, last = max(start, 0), max(min(start + kernel, length), 0)
        found.append(Window(slice(first, last), slice(first - start, last - start)))
    return found


def moved(taps: slice, origin: int) -> slice:
    """Return the same taps, counted from another origin."""
    return slice(taps.start - origin, taps.stop - origin)


def skip_unreachable_taps(network: nn.Module) -> None:
    """Make every SpikingJelly ``Conv2d`` in the network a ``TapConv2d``."""
    for module in network.modules():
        if type(module) is layer.Conv2d:
            # The subclass adds no state: parameters, names and settings stay those of the builder.
            module.__class__ = TapConv2d

"""A convolution that skips the kernel taps which only ever multiply padding."""

import torch.nn.functional as F
from spikingjelly.activation_based import layer
from torch import Tensor, nn


class TapConv2d(layer.Conv2d):  # type: ignore[misc]  # SpikingJelly ships no types
    """SpikingJelly's ``Conv2d``, computed as a linear layer on its reachable taps where the output map is 1x1.

    With an H x H input, kernel k and padding p, tap j reads position ``j - p``: only taps p to p+H-1 see data. Outputs and
    gradients are those of the convolution (up to rounding), unreachable taps get gradient 0, and state-dict shapes stay. In the
    last stage of a ResNet with ImageNet stem at 32x32, one tap of nine is reachable.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Convolve [T,N,C,H,W] in multi-step mode, [N,C,H,W] in single-step mode."""
        if self._output_size(x.shape[-2:]) != (1, 1) or self.groups != 1 or self.padding_mode != "zeros":
            return super().forward(x)
        (kernel_h, kernel_w), (pad_h, pad_w) = self.kernel_size, self.padding
        seen = x[..., : kernel_h - pad_h, : kernel_w - pad_w]
        height, width = seen.shape[-2:]
        taps = self.weight[:, :, pad_h : pad_h + height, pad_w : pad_w + width]
        return F.linear(seen.flatten(-3), taps.flatten(1), self.bias)[..., None, None]

    def _output_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        if isinstance(self.padding, str) or self.dilation != (1, 1):
            return ()
        return tuple(
            (length + 2 * pad - kernel) // stride + 1
            for length, pad, kernel, stride in zip(size, self.padding, self.kernel_size, self.stride, strict=True)
        )


def skip_unreachable_taps(network: nn.Module) -> None:
    """Make every SpikingJelly ``Conv2d`` in the network a ``TapConv2d``."""
    for module in network.modules():
        if type(module) is layer.Conv2d:
            # The subclass adds no state: parameters, names and settings stay those of the builder.
            module.__class__ = TapConv2d

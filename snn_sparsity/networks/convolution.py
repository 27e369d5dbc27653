"""A convolution for spikes: on a CPU it multiplies what is not zero, and no padding."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from spikingjelly.activation_based import layer
from torch import Tensor

from snn_sparsity.measure.windows import reach
from snn_sparsity.networks import sparse

DENSE = 0.5
"""The share of inputs that are not 0 from which on leaving out the others costs more than it saves."""
SAMPLED = 16
"""Images whose inputs are counted to tell."""
FEW_PIXELS, FEW_PAIRS = 4, 16
"""Maps of so few inputs, and of so few inputs times outputs, are one matrix product: 2x2 and 1x1."""
FEW_INPUTS = 16
"""With fewer input channels oneDNN is slow at the gradient of a strided convolution's input."""

Pair = tuple[int, int]


class SpikeConv2d(layer.Conv2d):  # type: ignore[misc]  # SpikingJelly ships no types
    """SpikingJelly's ``Conv2d``, which on a CPU costs as much as there are spikes.

    Outputs and gradients are those of the convolution, up to rounding and in channels-last memory; parameters and state-dict names
    are its own. Where fewer than ``DENSE`` of the inputs are not zero, output and gradient of the weights are sums over those alone.
    Maps of 2x2 and 1x1 are matrix products without the padding: on a 1x1 map one in nine products of a 3x3 kernel is real. Which form
    runs depends on the input alone, and sums have one order on any number of threads. Elsewhere (a GPU, half precision, groups,
    dilation) it is SpikingJelly's.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Convolve [T,N,C,H,W] in multi-step mode, [N,C,H,W] in single-step mode."""
        if not self._is_plain(x):
            return super().forward(x)
        maps = x.flatten(0, -4)
        y: Tensor = _Convolution.apply(maps, self.weight, _Form.of(maps, self.weight, self.stride, self.padding))
        if self.bias is not None:
            y = y + self.bias.view(-1, 1, 1)
        return y.unflatten(0, x.shape[:-3])

    def _is_plain(self, x: Tensor) -> bool:
        # First, and alone: on a GPU a pass waits for Python.
        if x.device.type != "cpu":
            return False
        usual = self.padding_mode == "zeros" and not isinstance(self.padding, str) and self.dilation == (1, 1) and self.groups == 1
        # Fake tensors and the like have no numbers to look at.
        real = type(x) is Tensor and x.dtype == self.weight.dtype and x.dtype in sparse.REAL and x.numel() > 0
        watched = torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling()
        if not (usual and real) or watched or x.ndim != (5 if self.step_mode == "m" else 4):
            return False
        padded = [size + 2 * padding for size, padding in zip(x.shape[-2:], self.padding, strict=True)]
        return x.shape[-3] == self.in_channels and all(size >= kernel for size, kernel in zip(padded, self.kernel_size, strict=True))


class _Form(NamedTuple):
    """How one convolution of one input is computed.

    Attributes:
        shape: Its sizes; the kernel is the taps that reach the map.
        stride: Of the convolution.
        padding: Of the convolution.
        lists: Whether only inputs that are not 0 are looked at.
        pairs: Whether the map is so small that its dense form is a product of matrices.
    """

    shape: sparse.Shape
    stride: Pair
    padding: Pair
    lists: bool
    pairs: bool

    @staticmethod
    def of(x: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> "_Form":
        """Choose for x [M,C,H,W]."""
        down, right = map(reach, x.shape[2:], weight.shape[2:], stride, padding)
        images, inputs, rows, columns = x.shape
        kernel = down.end - down.first, right.end - right.first
        corner = padding[0] - down.first, padding[1] - right.first
        outputs = down.outputs, right.outputs, len(weight)
        whole = *weight.shape[2:], down.first, right.first
        shape = sparse.Shape(images, rows, columns, inputs, *outputs, *kernel, *stride, *corner, *whole)
        # A kernel of one pixel multiplies each input once: too little work to prepare.
        several, pixels = weight[0, 0].numel() > 1, rows * columns
        some = x[:: max(1, images // SAMPLED)]
        lists = several and sparse.can_convolve(shape, x.dtype) and int(some.count_nonzero()) / some.numel() < DENSE
        pairs = several and pixels <= FEW_PIXELS and pixels * down.outputs * right.outputs <= FEW_PAIRS
        return _Form(shape, stride, padding, lists, pairs)

    def convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        if self.lists:
            return _channels_first(sparse.convolve(_pixels(x), weight, self.shape))
        if self.pairs:
            x, taps = _pixels(x).flatten(1, 2), self._taps(weight)
            y = x.new_zeros(len(x), self.shape.out_rows * self.shape.out_columns, self.shape.outputs)
            for pixel, output, tap in self._meetings():
                y[:, output].addmm_(x[:, pixel], taps[tap].T)
            return _channels_first(y.unflatten(1, (self.shape.out_rows, self.shape.out_columns)))
        return F.conv2d(x, weight.contiguous(memory_format=torch.channels_last), None, self.stride, self.padding)

    def input_gradient(self, g: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        if self.pairs:
            g, taps = _pixels(g).flatten(1, 2), self._taps(weight)
            g_x = g.new_zeros(len(g), self.shape.rows * self.shape.columns, self.shape.inputs)
            for pixel, output, tap in self._meetings():
                g_x[:, pixel].addmm_(g[:, output], taps[tap])
            return _channels_first(g_x.unflatten(1, (self.shape.rows, self.shape.columns)))
        if self.shape.inputs < FEW_INPUTS and self.stride == (2, 2) and self.shape.rows % 2 == self.shape.columns % 2 == 0:
            return self._input_gradient_by_phases(g, weight)
        return self._dense_gradient(g, x, weight, of_input=True)

    def _input_gradient_by_phases(self, g: Tensor, weight: Tensor) -> Tensor:
        """Return the gradient of a stem's input: one convolution of g gives the four pixels of each 2x2 square as channels.

        Pixel ``2a + phase`` is joined to output ``a + offset`` by the tap ``phase + padding - 2 offset``.
        """
        outputs, inputs, *kernel = weight.shape
        joined = [
            [(phase, (phase + padding - tap) // 2, tap) for phase in range(2) for tap in range(size) if (phase + padding - tap) % 2 == 0]
            for size, padding in zip(kernel, self.padding, strict=True)
        ]
        (top, bottom), (left, right) = ((min(offset for _, offset, _ in axis), max(offset for _, offset, _ in axis)) for axis in joined)
        phases = weight.new_zeros(inputs, 2, 2, outputs, bottom - top + 1, right - left + 1)
        for row_phase, down, row in joined[0]:
            for column_phase, across, column in joined[1]:
                phases[:, row_phase, column_phase, :, down - top, across - left] = weight[:, :, row, column].T
        squares = self.shape.rows // 2, self.shape.columns // 2
        padded = F.pad(g, (-left, squares[1] + right - g.shape[3], -top, squares[0] + bottom - g.shape[2]))
        kernel_of_phases = phases.flatten(0, 2).contiguous(memory_format=torch.channels_last)
        return F.pixel_shuffle(F.conv2d(padded.contiguous(memory_format=torch.channels_last), kernel_of_phases), 2)

    def weight_gradient(self, g: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        if self.lists:
            return sparse.weight_gradient(_pixels(x), _pixels(g), self.shape)
        if self.pairs:
            x, g, g_weight = _pixels(x).flatten(1, 2), _pixels(g).flatten(1, 2), torch.zeros_like(weight)
            g_taps = torch.zeros_like(self._taps(weight))
            for pixel, output, tap in self._meetings():
                g_taps[tap].addmm_(g[:, output].T, x[:, pixel])
            self._kernel(g_weight).copy_(g_taps.unflatten(0, (self.shape.kernel_rows, self.shape.kernel_columns)))
            return g_weight
        return self._dense_gradient(g, x, weight, of_input=False)

    def _dense_gradient(self, g: Tensor, x: Tensor, weight: Tensor, of_input: bool) -> Tensor:
        wanted = [of_input, not of_input, False]
        fixed = (None, self.stride, self.padding, (1, 1), False, (0, 0), 1)
        return torch.ops.aten.convolution_backward(g, x, weight, *fixed, wanted)[0 if of_input else 1]

    def _kernel(self, weight: Tensor) -> Tensor:
        """Return the part [kernel rows,kernel columns,outputs,inputs] of a weight that reaches the map, in its memory."""
        rows = slice(self.shape.first_row, self.shape.first_row + self.shape.kernel_rows)
        columns = slice(self.shape.first_column, self.shape.first_column + self.shape.kernel_columns)
        return weight[:, :, rows, columns].permute(2, 3, 0, 1)

    def _taps(self, weight: Tensor) -> Tensor:
        """Return the taps [taps,outputs,inputs] that reach the map."""
        return self._kernel(weight).contiguous().flatten(0, 1)

    def _meetings(self) -> list[tuple[int, int, int]]:
        """Return which pixel meets which output through which tap."""
        s = self.shape
        found = []
        for pixel in range(s.rows * s.columns):
            for output in range(s.out_rows * s.out_columns):
                row = pixel // s.columns + s.top - output // s.out_columns * s.row_stride
                column = pixel % s.columns + s.left - output % s.out_columns * s.column_stride
                if 0 <= row < s.kernel_rows and 0 <= column < s.kernel_columns:
                    found.append((pixel, output, row * s.kernel_columns + column))
        return found


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, weight: Tensor, form: _Form) -> Tensor:
        return form.convolve(x, weight)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, ctx.form = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        form: _Form = ctx.form
        (g,) = gradients
        if torch.is_grad_enabled():
            # As a graph, for losses that are made of gradients.
            wanted = [tensor for tensor in (x, weight) if tensor.requires_grad]
            found = iter(torch.autograd.grad(F.conv2d(x, weight, None, form.stride, form.padding), wanted, g, create_graph=True))
            return (*(next(found) if tensor.requires_grad else None for tensor in (x, weight)), None)
        g_x = form.input_gradient(g, x, weight) if ctx.needs_input_grad[0] else None
        g_weight = form.weight_gradient(g, x, weight) if ctx.needs_input_grad[1] else None
        return g_x, g_weight, None


def _pixels(x: Tensor) -> Tensor:
    """Return x [M,C,H,W] as [M,H,W,C], contiguous: a view where channels lie last in memory."""
    return x.permute(0, 2, 3, 1).contiguous()


def _channels_first(pixels: Tensor) -> Tensor:
    """Return [M,H,W,C] as [M,C,H,W], in the same memory."""
    return pixels.permute(0, 3, 1, 2)

"""The compiled convolution of inputs that are mostly zero, and its gradient of the weights."""

import ctypes
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from snn_sparsity.networks import native

SOURCE = Path(__file__).with_suffix(".c")
REAL = {torch.float32: "float", torch.float64: "double"}
INPUTS, OUTPUTS = 16, 32
"""The compiled functions take so many channels at a time."""
MOST_WEIGHTS = 2**16
"""Of an output and a slice of inputs: they are counted in 16 bits."""


class Shape(NamedTuple):
    """The sizes of a convolution of maps with zero padding, in pixels and channels.

    Attributes:
        images: How many.
        rows: Of an input map.
        columns: Of an input map.
        inputs: Channels of the input.
        out_rows: Of an output map.
        out_columns: Of an output map.
        outputs: Channels of the output.
        kernel_rows: Of the kernel.
        kernel_columns: Of the kernel.
        row_stride: Pixels between two outputs, down.
        column_stride: Pixels between two outputs, to the right.
        top: Padding above; below is whatever the outputs need.
        left: Padding to the left.
        whole_rows: Of the weights, of which the kernel is the part that meets the map at some output.
        whole_columns: Of the weights.
        first_row: Of the kernel in the weights.
        first_column: Of the kernel in the weights.
    """

    images: int
    rows: int
    columns: int
    inputs: int
    out_rows: int
    out_columns: int
    outputs: int
    kernel_rows: int
    kernel_columns: int
    row_stride: int
    column_stride: int
    top: int
    left: int
    whole_rows: int
    whole_columns: int
    first_row: int
    first_column: int


class _Shape(ctypes.Structure):
    _fields_ = [(name, ctypes.c_longlong) for name in Shape._fields]


@cache
def compiled(dtype: torch.dtype) -> ctypes.CDLL | None:
    """Return ``forward`` and ``weight_gradient`` for numbers of a type; None, after one line in the log, where that cannot be."""
    return native.library(SOURCE, "-ffp-contract=fast", f"-DREAL={REAL[dtype]}")


def can_convolve(shape: Shape, dtype: torch.dtype) -> bool:
    """Return whether :func:`convolve` and :func:`weight_gradient` are made for such a convolution, and there is a compiler."""
    few = shape.kernel_rows * shape.kernel_columns * INPUTS < MOST_WEIGHTS
    fits = shape.inputs % INPUTS == 0 and shape.outputs % OUTPUTS == 0 and few
    return fits and compiled(dtype) is not None


def convolve(x: Tensor, weight: Tensor, shape: Shape) -> Tensor:
    """Return the convolution of x.

    Args:
        x: [images,rows,columns,inputs], contiguous; entries that are 0 cost nothing.
        weight: [outputs,inputs,whole rows,whole columns].
        shape: The sizes.

    Returns:
        [images,out rows,out columns,outputs].
    """
    y = x.new_empty(shape.images, shape.out_rows, shape.out_columns, shape.outputs)
    _call("forward", shape, x, weight.contiguous(), y)
    return y


def weight_gradient(x: Tensor, g: Tensor, shape: Shape) -> Tensor:
    """Return the gradient [outputs,inputs,whole rows,whole columns] of the weights, 0 outside the kernel.

    Args:
        x: As :func:`convolve` took it.
        g: [images,out rows,out columns,outputs], contiguous, the gradient of its output.
        shape: The sizes.
    """
    g_weight = x.new_empty(shape.outputs, shape.inputs, shape.whole_rows, shape.whole_columns)
    _call("weight_gradient", shape, x, g, g_weight)
    return g_weight


def _call(function: str, shape: Shape, *tensors: Tensor) -> None:
    library: Any = compiled(tensors[0].dtype)
    pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]
    if library[function](ctypes.byref(_Shape(*shape)), *pointers, torch.get_num_threads()):
        raise MemoryError(f"no memory for the lists of a convolution of {shape.images} images")

"""BatchNorm in training on a CPU with channels last in memory, with sums in double as PyTorch's where they lie first."""

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from spikingjelly.activation_based import layer
from torch import Tensor

from snn_sparsity.networks import native

SOURCE = Path(__file__).with_suffix(".c")


@cache
def compiled() -> ctypes.CDLL | None:
    """Return the compiled functions; None, after one line in the log, where that cannot be."""
    return native.library(SOURCE, "-ffp-contract=fast")


class SpikeBatchNorm2d(layer.BatchNorm2d):  # type: ignore[misc]  # SpikingJelly ships no types
    """SpikingJelly's ``BatchNorm2d``, which keeps channels last in memory at no loss of digits.

    PyTorch sums in float there, in an order that depends on the number of threads. Used in training, in float32 on a CPU. In eval
    mode, while its weights want no gradient (attacks), only the backward pass is its own: a product, where PyTorch sums gradients for
    weights all the same. Elsewhere it is SpikingJelly's.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [T,N,C,H,W] in multi-step mode, [N,C,H,W] in single-step mode."""
        if not self._is_plain(x):
            return super().forward(x)
        maps = x.flatten(0, -4)
        input_alone = x.requires_grad and torch.is_grad_enabled() and not (self.weight.requires_grad or self.bias.requires_grad)
        if input_alone and not self.training:
            return _FixedBatchNorm.apply(maps, self.weight, self.bias, self.running_mean, self.running_var, self.eps).view(x.shape)
        values = x.numel() // x.shape[-3]
        usual = self.training and self.momentum is not None and maps.dtype == torch.float32 and values > 1
        if not (usual and maps.is_contiguous(memory_format=torch.channels_last) and compiled() is not None):
            # The stride of a single map means nothing, and PyTorch's backward pass goes wrong by some (seen with 2.15).
            return super().forward(x.clone(memory_format=torch.contiguous_format) if len(maps) == 1 else x)
        mean, square = _sums("moments", maps.detach()) / values
        mean, variance = mean.float(), (square - mean * mean).clamp(min=0).float()
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            for running, seen in ((self.running_mean, mean), (self.running_var, variance * (values / (values - 1)))):
                running.copy_(self.momentum * seen.double() + (1 - self.momentum) * running.double())
        y: Tensor = _BatchNorm.apply(maps, self.weight, self.bias, mean, variance, self.eps)
        return y.view(x.shape)

    def _is_plain(self, x: Tensor) -> bool:
        if x.device.type != "cpu" or type(x) is not Tensor or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
            return False
        fits = x.ndim == (5 if self.step_mode == "m" else 4) and x.shape[-3] == self.num_features and x.numel() > 0
        return fits and self.affine and self.track_running_stats and x.dtype == self.weight.dtype


class _FixedBatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float) -> Tensor:
        return F.batch_norm(x, mean, variance, weight, bias, eps=eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, weight, _, _, variance, eps = inputs
        ctx.save_for_backward(_inverse(variance, eps) * weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (scale,) = ctx.saved_tensors
        return gradients[0] * scale.view(-1, 1, 1), None, None, None, None, None


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float) -> Tensor:
        scale = _inverse(variance, eps) * weight
        shift = (bias.double() - mean.double() * scale.double()).float()
        y = torch.empty_like(x)
        _call("normalise", x, scale, shift, y)
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.eps = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, variance = ctx.saved_tensors
        (g,) = gradients
        if torch.is_grad_enabled():
            # As a graph, for losses that are made of gradients.
            inputs = x, weight, bias
            y = F.batch_norm(x, None, None, weight, bias, training=True, eps=ctx.eps)
            found = iter(torch.autograd.grad(y, [tensor for tensor in inputs if tensor.requires_grad], g, create_graph=True))
            return (*(next(found) if tensor.requires_grad else None for tensor in inputs), None, None, None)
        g = g.contiguous(memory_format=torch.channels_last)
        total, along = _sums("gradient_moments", x, g, mean).float()
        inverse, values = _inverse(variance, ctx.eps), x.numel() // len(mean)
        g_x = torch.empty_like(x)
        _call("input_gradient", x, g, mean, total / values, along * inverse * inverse / values, inverse * weight, g_x)
        return g_x, along * inverse, total, None, None, None


def _inverse(variance: Tensor, eps: float) -> Tensor:
    return (1 / (variance.double() + eps).sqrt()).to(variance)


def _sums(function: str, x: Tensor, *others: Tensor) -> Tensor:
    """Return what a function sums up [2,C], in double."""
    sums = torch.empty(2, x.shape[1], dtype=torch.float64)
    _call(function, x, *others, sums)
    return sums


def _call(function: str, x: Tensor, *others: Tensor) -> None:
    library: Any = compiled()
    pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (x, *others)]
    channels = x.shape[1]
    sizes = [ctypes.c_longlong(size) for size in (x.numel() // channels, channels)]
    if library[function](*pointers, *sizes, torch.get_num_threads()):
        raise MemoryError("no memory for the sums of BatchNorm")

"""BatchNorm over the batches of all processes, over time as over images."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.distributed
from spikingjelly.activation_based import layer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from snn_sparsity.networks.layers import batch_norm_as
from snn_sparsity.networks.spike_batch_norm import SpikeBatchNorm2d
from snn_sparsity.validation import InputError


class OneValueError(InputError):
    """A BatchNorm was to take the statistics of one value per channel: there are none."""


@contextmanager
def one_value_refused(network: nn.Module) -> Iterator[None]:
    """Raise OneValueError, naming the module, where a BatchNorm would take statistics of one value per channel.

    That is a batch of one image, with one time step and maps of 1x1. PyTorch ends there in an error that names no module.
    """

    def look(path: str) -> Any:
        def note(module: _BatchNorm, inputs: tuple[Tensor, ...]) -> None:
            together = isinstance(module, SyncBatchNorm2d) and not module.by_itself and torch.distributed.is_initialized()
            uses_batch = module.training or module.running_mean is None
            if uses_batch and not together and inputs[0].numel() == module.num_features:
                raise OneValueError(one_value(path))

        note.looks_at_shapes = True  # type: ignore[attr-defined]  # CUDAGraphs: what passed once passes again
        return note

    with ExitStack() as hooks:
        for path, module in network.named_modules():
            if isinstance(module, _BatchNorm):
                hooks.callback(module.register_forward_pre_hook(look(path)).remove)
        yield


def one_value(path: str) -> str:
    """Return why a batch cannot go through a BatchNorm, and what helps."""
    return (
        f"BatchNorm {path!r} sees one value per channel, of which there is no variance: a batch of 1 image, 1 time step and a map of 1x1. "
        "Give a batch size that leaves no single image at the end of an epoch, more time steps, or other numbers of images"
    )


class SyncBatchNorm2d(SpikeBatchNorm2d):
    """A ``BatchNorm2d``; in training its statistics are those of all processes' batches together.

    On one process, in eval mode and inside :func:`each_by_itself` it is what it takes the place of. ``torch.nn.SyncBatchNorm`` knows no
    time dimension and no CPU. State-dict names stay.
    """

    by_itself = False
    alone: type[layer.BatchNorm2d] = SpikeBatchNorm2d
    """What it takes the place of."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [T,N,C,H,W] in multi-step mode, [N,C,H,W] in single-step mode."""
        if not self.training or self.by_itself or not torch.distributed.is_initialized():
            found: Tensor = self.alone.forward(self, x)
            return found
        # Half precision is too coarse for statistics, as in every BatchNorm.
        mean, variance, count = moments(x if x.element_size() >= 4 else x.float())
        if count == 1:
            raise OneValueError(one_value(type(self).__name__))
        if self.track_running_stats:
            unbiased = variance.detach() * count / (count - 1)
            self.num_batches_tracked.add_(1)
            share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.detach().to(self.running_mean.dtype), share)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), share)
        scale = (variance + self.eps).rsqrt()
        scale = scale if self.weight is None else scale * self.weight
        shift = -mean * scale if self.bias is None else self.bias - mean * scale
        return (x * _along_channels(scale) + _along_channels(shift)).to(x.dtype)


def moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return each channel's mean [C] and biased variance [C] over all processes, and how many values they are of.

    In two passes: the mean of squares less the square of the mean would lose digits.
    """
    over = [dim for dim in range(x.ndim) if dim != x.ndim - 3]
    count = x.new_full((1,), x.numel() // x.shape[-3])
    *total, count = _Sum.apply(torch.cat([x.sum(over), count])).split([x.shape[-3], 1])
    mean = total[0] / count.detach()
    variance = _Sum.apply((x - _along_channels(mean)).square().sum(over)) / count.detach()
    return mean, variance, count.detach()


def synchronise(network: nn.Module) -> None:
    """Put a ``SyncBatchNorm2d`` in the place of every SpikingJelly ``BatchNorm2d`` of a network, with the same parameters and buffers.

    Raises:
        InputError: For a BatchNorm of another kind, naming it; the network is then as it was.
    """
    norms = [(path, module) for path, module in network.named_modules() if isinstance(module, _BatchNorm)]
    for path, module in norms:
        if type(module) not in (layer.BatchNorm2d, SpikeBatchNorm2d, SyncBatchNorm2d):
            raise InputError(
                f"trainer.sync_batchnorm=true is not allowed with this network: {path} is a {type(module).__name__}, and only "
                "SpikingJelly's BatchNorm2d can be synchronised; give false"
            )
    for path, module in norms:
        if not isinstance(module, SyncBatchNorm2d):
            synchronised = batch_norm_as(SyncBatchNorm2d, module)
            synchronised.alone = type(module)
            network.set_submodule(path, synchronised)


def desynchronise(network: nn.Module) -> None:
    """Undo :func:`synchronise`."""
    for path, module in list(network.named_modules()):
        if isinstance(module, SyncBatchNorm2d):
            network.set_submodule(path, batch_norm_as(module.alone, module))


@contextmanager
def each_by_itself(network: nn.Module) -> Iterator[None]:
    """Let no BatchNorm speak to other processes: what is measured on a batch depends on that batch alone."""
    synchronised = [module for module in network.modules() if isinstance(module, SyncBatchNorm2d)]
    try:
        for module in synchronised:
            module.by_itself = True
        yield
    finally:
        for module in synchronised:
            module.by_itself = False


class _Sum(torch.autograd.Function):
    """The sum over all processes, whose losses all depend on it: gradients are summed as well."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Sum.apply(gradients[0])


def _along_channels(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1)

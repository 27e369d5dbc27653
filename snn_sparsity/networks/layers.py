"""Which classes the layers of a network are made of."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch
from spikingjelly.activation_based import layer
from torch import nn

from snn_sparsity.networks import sparse, spike_batch_norm
from snn_sparsity.networks.convolution import SpikeConv2d
from snn_sparsity.networks.spike_batch_norm import SpikeBatchNorm2d

Made = TypeVar("Made", bound=nn.Module)
BatchNorm = TypeVar("BatchNorm", bound=layer.BatchNorm2d)


def use_spike_layers(network: nn.Module) -> None:
    """Put layers made for spikes in the place of SpikingJelly's in a network that is being built.

    Each ``Conv2d`` becomes a :class:`SpikeConv2d`, each ``BatchNorm2d`` a :class:`SpikeBatchNorm2d`, with the same parameters, buffers
    and settings: names, shapes, numbers and the state of the random numbers stay as they were.

    Example:
        >>> network = nn.Sequential(layer.Conv2d(3, 8, 3))
        >>> use_spike_layers(network)
        >>> type(network[0]).__name__
        'SpikeConv2d'
    """
    # Compiled here, where that was not done before: the first forward pass would wait for it.
    sparse.compiled(torch.float32)
    spike_batch_norm.compiled()
    for path, module in list(network.named_modules()):
        if type(module) in MADE_FOR_SPIKES:
            network.set_submodule(path, MADE_FOR_SPIKES[type(module)](module))


def _convolution(module: layer.Conv2d) -> SpikeConv2d:
    size = module.in_channels, module.out_channels, module.kernel_size, module.stride, module.padding, module.dilation, module.groups
    # Without memory, and without a draw from the random numbers.
    with torch.device("meta"):
        made = SpikeConv2d(*size, module.bias is not None, module.padding_mode, module.step_mode)
    return _with_state(made, module)


def batch_norm_as(kind: type[BatchNorm], module: layer.BatchNorm2d) -> BatchNorm:
    """Return a BatchNorm of another class with the settings, parameters and buffers of this one.

    Example:
        >>> plain = layer.BatchNorm2d(3)
        >>> batch_norm_as(SpikeBatchNorm2d, plain).weight is plain.weight
        True
    """
    settings = module.eps, module.momentum, module.affine, module.track_running_stats, module.step_mode
    with torch.device("meta"):
        made = kind(module.num_features, *settings)
    return _with_state(made, module)


def _with_state(made: Made, module: nn.Module) -> Made:
    made._parameters.update(module._parameters)
    made._buffers.update(module._buffers)
    return made.train(module.training)


MADE_FOR_SPIKES: dict[type[nn.Module], Callable[..., nn.Module]] = {
    layer.Conv2d: _convolution,
    layer.BatchNorm2d: partial(batch_norm_as, SpikeBatchNorm2d),
}

"""What an image costs: multiplications, synaptic operations, firing, and an estimate of the energy."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snn_sparsity.batch import SpikeBatch
from snn_sparsity.measure.names import ENERGY, FIRING_RATE, FLOPS, SYNOPS
from snn_sparsity.measure.operations import kind_of
from snn_sparsity.probes.base import Probe
from snn_sparsity.probes.context import ProbeContext
from snn_sparsity.validation import InputError

ADDITION, MULTIPLICATION = 0.9, 4.6
"""pJ in 45 nm, float32: an addition, and a multiplication with its addition (Horowitz, ISSCC 2014)."""


@dataclass(kw_only=True, eq=False)
class SynapticOperations(Probe):
    """Count what convolutions and linear layers do for an image, over all time steps, by what arrives at their inputs.

    | key | meaning | unit |
    |---|---|---|
    | ``<name>/flops`` | floating-point operations of the layers run densely: two per connection | per image |
    | ``<name>/synops`` | synaptic operations: one per input that is not 0 and outgoing connection | per image |
    | ``<name>/energy`` | 0.9 pJ per synaptic operation of a spike, 4.6 pJ per connection of layers that get other numbers | pJ per image |
    | ``<name>/firing_rate`` | spikes of all neurons, per neuron and time step; left out without neurons | [0,1] |

    What falls on zeros around a map is no connection; reflected, repeated and wrapped padding is made of inputs, and each copy connects.
    The counts are the network's, whichever kernels run it.

    Args:
        max_samples: A few images say enough: the counts hardly differ.
    """

    max_samples: int | None = 4

    def measure(self, context: ProbeContext, batch: SpikeBatch) -> dict[str, Tensor]:
        """Count, image by image."""
        counts = [self._count(context.classifier, batch.spikes[:, index : index + 1]) for index in range(len(batch.labels))]
        return {name: torch.tensor([count[name] for count in counts], dtype=torch.float64) for name in counts[0]}

    def _count(self, classifier: nn.Module, spikes: Tensor) -> dict[str, float]:
        count = {FLOPS: 0.0, SYNOPS: 0.0, ENERGY: 0.0}
        fired: list[Tensor] = []

        def connected(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            x = inputs[0].detach()
            dense, used = fan_out(layer, torch.ones_like(x)), fan_out(layer, (x != 0).to(x.dtype))
            binary = bool(((x == 0) | (x == 1)).all())
            count[FLOPS] += 2 * dense
            count[SYNOPS] += used
            count[ENERGY] += ADDITION * used if binary else MULTIPLICATION * dense

        with torch.no_grad(), ExitStack() as hooks:
            for module in classifier.modules():
                look: Callable[..., None] | None = {
                    "conv": connected,
                    "linear": connected,
                    "neuron": lambda _, inputs, output: fired.append(output.flatten()),
                }.get(kind_of(module) or "")
                if look:
                    hooks.callback(module.register_forward_hook(look).remove)
            classifier(spikes)
        return count | ({FIRING_RATE: float(torch.cat(fired).mean())} if fired else {})


def fan_out(layer: nn.Module, mask: Tensor) -> float:
    """Return the outgoing connections of the inputs that are 1 in a mask, in a convolution of maps or a linear layer.

    Args:
        layer: ``Conv2d`` or ``Linear``, or a subclass.
        mask: [...,C,H,W] or [...,F], 0 or 1.

    Example:
        >>> fan_out(nn.Linear(3, 5), torch.tensor([[1.0, 0.0, 1.0]])), fan_out(nn.Conv2d(1, 2, 3, padding=1), torch.ones(1, 1, 2, 2))
        (10.0, 32.0)
    """
    if isinstance(layer, nn.Linear):
        return float(mask.sum()) * layer.out_features
    if not isinstance(layer, nn.Conv2d):
        raise InputError(f"the connections of {type(layer).__name__} cannot be counted: only those of Linear and Conv2d")
    # Each input is in as many windows as this convolution with ones counts, and in each for all output channels of its group.
    maps = mask.flatten(0, -4).sum(1, keepdim=True, dtype=torch.float64)
    ones = maps.new_ones(1, 1, *layer.kernel_size)
    if layer.padding_mode == "zeros":
        windows = F.conv2d(maps, ones, None, layer.stride, layer.padding, layer.dilation)
    else:
        padded = F.pad(maps, layer._reversed_padding_repeated_twice, mode=layer.padding_mode)
        windows = F.conv2d(padded, ones, None, layer.stride, 0, layer.dilation)
    return float(windows.sum()) * layer.out_channels / layer.groups

"""VGG with spiking neurons, as the published defences use it."""

from dataclasses import replace
from itertools import pairwise
from typing import Literal

from spikingjelly.activation_based import functional, layer
from torch import Tensor, nn

from snn_sparsity.networks.input_normalisation import input_normalisation
from snn_sparsity.networks.layers import use_spike_layers
from snn_sparsity.networks.leaky import LeakyNeuron
from snn_sparsity.networks.resnet import MOST_CLASSES
from snn_sparsity.validation import InputError, require_choice, require_number

Plan = list[int | Literal["A"]]
VGG11: Plan = [64, "A", 128, 256, "A", 512, 512, 512, "A", 512, 512]
VGG5: Plan = [64, "A", 128, 128, "A"]
RAT_NEURON = LeakyNeuron()
MOST_CHANNELS = 65_536


class VGG(nn.Sequential):
    """VGG: spikes or pixel values [T,N,3,H,W] in, outputs [T,N,K] out.

    Each convolution (3x3, padding 1) is followed by BatchNorm over all time steps and a neuron; ``A`` is average pooling (2x2) of
    spikes. Then two hidden linear layers with neurons, and one without. Defaults are the VGG-11 of SNN-RAT (Ding et al., NeurIPS 2022)
    and SR (Liu et al., ICML 2024), 61,377,034 parameters with 10 classes; Sharmin et al.'s VGG-5 (ECCV 2020) and HIRE-SNN's networks
    (ICCV 2021) are settings of it: ``docs/defences.md``.

    State-dict names: ``conv1``, ``bn1``, ... and ``fc1`` to ``fc3``; what a neuron learns is ``conv1_neuron.v_threshold``,
    ``fc1_neuron.leak`` and so on.

    Args:
        channels: Output channels of the convolutions in order, and ``A`` for a pooling.
        hidden: Width of the two hidden linear layers.
        num_classes: K, 2 to 100,000.
        image_size: H = W of the images.
        bias: Whether convolutions and linear layers have one.
        batch_norm: Whether BatchNorm follows each convolution.
        dropout: Share of spikes dropped behind each neuron that no pooling follows, the same at all time steps.
        neurons: Every spiking neuron of the network.
        thresholds: One V_th for each neuron layer in order, instead of the neuron's own.
        readout: ``mean``, or ``sum``, which multiplies the outputs by T, so that their time-mean is the sum over time.
        mean: Mean of each channel, for normalisation as the first layer; null is none.
        std: Standard deviation of each channel, above 0.
        spiking: Whether neurons spike; the twin without has ReLUs on the same weights, and sees the time-mean of its input once.

    Raises:
        InputError: For a value not allowed.

    Example:
        >>> import torch
        >>> VGG(channels=[4, "A", 8], hidden=16, image_size=8)(torch.zeros(4, 2, 3, 8, 8)).shape
        torch.Size([4, 2, 10])
    """

    def __init__(
        self,
        channels: Plan = VGG11,
        hidden: int = 4096,
        num_classes: int = 10,
        image_size: int = 32,
        bias: bool = True,
        batch_norm: bool = True,
        dropout: float = 0.0,
        neurons: LeakyNeuron = RAT_NEURON,
        thresholds: list[float] | None = None,
        readout: Literal["mean", "sum"] = "mean",
        mean: list[float] | None = None,
        std: list[float] | None = None,
        spiking: bool = True,
    ) -> None:
        super().__init__()
        _check(channels, image_size)
        require_number("hidden", hidden, at_least=1, at_most=MOST_CHANNELS, whole=True)
        require_number("num_classes", num_classes, at_least=2, at_most=MOST_CLASSES, whole=True)
        require_number("dropout", dropout, at_least=0, at_most=0.999)
        require_choice("readout", readout, ("mean", "sum"))
        layers = sum(width != "A" for width in channels) + 2
        self.num_classes, self.readout, self.spiking = num_classes, readout, spiking
        self._neurons = iter(neuron_layers(neurons, thresholds, layers) if spiking else [nn.ReLU() for _ in range(layers)])
        self._dropout = dropout

        self.normalise = input_normalisation(mean, std)
        size, features, number = image_size, 3, 0
        for width, following in zip(channels, [*channels[1:], None], strict=True):
            if width == "A":
                size //= 2
                self.add_module(f"pool{number}", layer.AvgPool2d(2))
                continue
            number += 1
            self.add_module(f"conv{number}", layer.Conv2d(features, width, kernel_size=3, padding=1, bias=bias))
            if batch_norm:
                self.add_module(f"bn{number}", layer.BatchNorm2d(width))
            self._add_neuron(f"conv{number}", pooled=following == "A")
            features = width
        self.flatten = nn.Flatten(2)
        for number, (inputs, outputs) in enumerate([(features * size**2, hidden), (hidden, hidden), (hidden, num_classes)], start=1):
            self.add_module(f"fc{number}", layer.Linear(inputs, outputs, bias=bias))
            if number < 3:
                self._add_neuron(f"fc{number}", pooled=False)
        del self._neurons
        initialise(self)
        use_spike_layers(self)
        functional.set_step_mode(self, "m")

    def _add_neuron(self, name: str, pooled: bool) -> None:
        self.add_module(f"{name}_neuron", next(self._neurons))
        if self._dropout and not pooled:
            self.add_module(f"{name}_dropout", layer.Dropout(self._dropout))

    def forward(self, spikes: Tensor) -> Tensor:
        """Return the outputs [T,N,K]; [1,N,K] of the twin that does not spike."""
        steps = len(spikes)
        outputs: Tensor = super().forward(spikes if self.spiking else spikes.mean(0, keepdim=True))
        return outputs * steps if self.readout == "sum" else outputs


def neuron_layers(neuron: LeakyNeuron, thresholds: list[float] | None, count: int) -> list[nn.Module]:
    """Return the neuron layers of a network, with a threshold each where they are given.

    Raises:
        InputError: For another number of thresholds than layers.
    """
    if thresholds is None:
        return [neuron.build() for _ in range(count)]
    if len(thresholds) != count:
        raise InputError(f"thresholds={thresholds} is not allowed: give {count} numbers, one for each layer of neurons")
    return [replace(neuron, threshold=threshold).build() for threshold in thresholds]


def initialise(network: nn.Module) -> None:
    """Draw convolutions as Kaiming-normal by their outputs, and set the biases of linear layers to 0, as SNN-RAT and SR do."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def _check(channels: Plan, image_size: int) -> None:
    require_number("image_size", image_size, at_least=1, at_most=4096, whole=True)
    if not channels or channels[0] == "A":
        raise InputError(f"channels={channels} is not allowed: give a list that begins with a number of channels")
    for width in channels:
        if width != "A":
            require_number("channels", width, at_least=1, at_most=MOST_CHANNELS, whole=True)
    for one, other in pairwise(channels):
        if one == other == "A":
            raise InputError(f"channels={channels} is not allowed: no pooling may follow a pooling")
    if image_size >> channels.count("A") == 0:
        raise InputError(f"channels={channels} has {channels.count('A')} poolings: images of {image_size} pixels have room for fewer")

"""Wide ResNet with spiking neurons: currents are added around each block, spikes live inside it."""

from typing import Literal

import torch
from spikingjelly.activation_based import functional, layer
from torch import Tensor, nn

from snn_sparsity.networks.input_normalisation import input_normalisation
from snn_sparsity.networks.layers import use_spike_layers
from snn_sparsity.networks.leaky import LeakyNeuron
from snn_sparsity.networks.resnet import MOST_CLASSES
from snn_sparsity.networks.vgg import RAT_NEURON, initialise
from snn_sparsity.validation import InputError, require_choice, require_number

MOST_WIDTH = 64
MOST_DEPTH = 1000


class WideResNet(nn.Module):
    """Pre-activation Wide ResNet: spikes or pixel values [T,N,3,H,W] in, outputs [T,N,K] out.

    A convolution to 16 channels, three groups of blocks of 16k, 32k and 64k channels (strides 1, 2, 2), BatchNorm, neuron, global
    average pooling and a linear layer. A block is ``y = s(BN1(x))``, ``b = conv2(s(BN2(conv1(y))))`` and gives ``a0 shortcut + a1 b``,
    where the shortcut is x, or a 1x1 convolution of y where channels change. Convolutions have no bias. Defaults are SNN-RAT's
    WRN-16-4 (Ding et al., NeurIPS 2022; Zagoruyko and Komodakis, arXiv 1605.07146): 2,748,902 parameters with 10 classes.

    State-dict names: ``conv1``, ``block{1,2,3}.{i}.{bn1,conv1,bn2,conv2,shortcut}``, ``block{1,2,3}.{i}.mix``, ``bn``, ``fc``.

    Args:
        depth: 6n + 4, for n blocks a group.
        width: k, 1 to 64.
        num_classes: K, 2 to 100,000.
        residual: ``convex`` learns a0 and a1, from 1/2 each (``SimplexProjection`` keeps them on the simplex); ``plain`` adds.
        neurons: Every spiking neuron of the network.
        mean: Mean of each channel, for normalisation as the first layer; null is none.
        std: Standard deviation of each channel, above 0.
        spiking: Whether neurons spike; the twin without has ReLUs on the same weights, and sees the time-mean of its input once.

    Raises:
        InputError: For a value not allowed.

    Example:
        >>> WideResNet(depth=10, width=1)(torch.zeros(4, 2, 3, 8, 8)).shape
        torch.Size([4, 2, 10])
    """

    def __init__(
        self,
        depth: int = 16,
        width: int = 4,
        num_classes: int = 10,
        residual: Literal["convex", "plain"] = "convex",
        neurons: LeakyNeuron = RAT_NEURON,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        spiking: bool = True,
    ) -> None:
        super().__init__()
        require_number("depth", depth, at_least=10, at_most=MOST_DEPTH, whole=True)
        if depth % 6 != 4:
            raise InputError(f"depth={depth} is not allowed: give 6n + 4, such as 16")
        require_number("width", width, at_least=1, at_most=MOST_WIDTH, whole=True)
        require_number("num_classes", num_classes, at_least=2, at_most=MOST_CLASSES, whole=True)
        require_choice("residual", residual, ("convex", "plain"))
        self.num_classes, self.spiking = num_classes, spiking
        recipe = neurons if spiking else None

        self.normalise = input_normalisation(mean, std)
        self.conv1 = layer.Conv2d(3, 16, kernel_size=3, padding=1, bias=False)
        channels, groups = 16, []
        for outputs, stride in [(16 * width, 1), (32 * width, 2), (64 * width, 2)]:
            blocks = [
                WideBlock(channels if i == 0 else outputs, outputs, stride if i == 0 else 1, residual, recipe) for i in range(depth // 6)
            ]
            groups.append(nn.Sequential(*blocks))
            channels = outputs
        self.block1, self.block2, self.block3 = groups
        self.bn = layer.BatchNorm2d(channels)
        self.neuron = _activation(recipe)
        self.pool = layer.AdaptiveAvgPool2d((1, 1))
        self.fc = layer.Linear(channels, num_classes)
        initialise(self)
        use_spike_layers(self)
        functional.set_step_mode(self, "m")

    def forward(self, spikes: Tensor) -> Tensor:
        """Return the outputs [T,N,K]; [1,N,K] of the twin that does not spike."""
        x = self.conv1(self.normalise(spikes if self.spiking else spikes.mean(0, keepdim=True)))
        x = self.block3(self.block2(self.block1(x)))
        outputs: Tensor = self.fc(self.pool(self.neuron(self.bn(x))).flatten(2))
        return outputs


class WideBlock(nn.Module):
    """A block of a :class:`WideResNet`: currents [T,N,C,H,W] in and out.

    Args:
        inputs: Channels that come in.
        outputs: Channels that go out.
        stride: Of the first convolution, and of the shortcut's.
        residual: ``convex`` or ``plain``.
        neuron: Its neurons; null is ReLU.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, residual: str, neuron: LeakyNeuron | None) -> None:
        super().__init__()
        self.bn1 = layer.BatchNorm2d(inputs)
        self.neuron1 = _activation(neuron)
        self.conv1 = layer.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn2 = layer.BatchNorm2d(outputs)
        self.neuron2 = _activation(neuron)
        self.conv2 = layer.Conv2d(outputs, outputs, kernel_size=3, padding=1, bias=False)
        self.shortcut = None if inputs == outputs else layer.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False)
        self.mix = nn.Parameter(torch.full((2,), 0.5)) if residual == "convex" else None

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of shortcut and branch."""
        y = self.neuron1(self.bn1(x))
        branch = self.conv2(self.neuron2(self.bn2(self.conv1(y))))
        kept = x if self.shortcut is None else self.shortcut(y)
        total: Tensor = kept + branch if self.mix is None else self.mix[0] * kept + self.mix[1] * branch
        return total


def _activation(neuron: LeakyNeuron | None) -> nn.Module:
    return nn.ReLU() if neuron is None else neuron.build()

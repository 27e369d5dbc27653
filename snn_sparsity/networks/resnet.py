"""What SEW-ResNet and Spiking-ResNet share: depths, the stem and its pooling."""

from typing import Literal

from spikingjelly.activation_based import functional, layer
from torch import nn

from snn_sparsity.networks.layers import use_spike_layers
from snn_sparsity.validation import require_choice, require_number

Depth = Literal[18, 34, 50, 101, 152]
Pool = Literal["max", "avg"]
Stem = Literal["imagenet", "cifar"]

LAYERS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
FIRST_BOTTLENECK_DEPTH = 50
MOST_CLASSES = 100_000


def check_resnet(depth: int, num_classes: int, pool: str, stem: str) -> None:
    """Raise InputError for a depth, class count, pooling or stem that no ResNet of ours has."""
    require_choice("depth", depth, LAYERS)
    require_number("num_classes", num_classes, at_least=2, at_most=MOST_CLASSES, whole=True)
    require_choice("pool", pool, ("max", "avg"))
    require_choice("stem", stem, ("imagenet", "cifar"))


def finish_stem(network: nn.Module, pool: Pool, stem: Stem) -> None:
    """Give a SpikingJelly ResNet the stem asked for and put it in multi-step mode.

    The ImageNet stem (7x7, stride 2, then pooling) is the paper's; on 32x32 images it leaves 1x1 maps in the last stage. The
    CIFAR stem is a 3x3 convolution of stride 1; its pooling stays, so that max and average can be compared.
    """
    if stem == "cifar":
        convolution = layer.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        network.conv1 = convolution
    if pool == "avg":
        network.maxpool = layer.AvgPool2d(kernel_size=3, stride=2, padding=1)
    use_spike_layers(network)
    functional.set_step_mode(network, "m")

"""A spiking network and a dataset small enough that a whole fit takes a second."""

from dataclasses import dataclass

import torch
from spikingjelly.activation_based import functional, layer
from torch import nn

from snn_sparsity.data.base import SpikeDataModule
from snn_sparsity.data.images import ImageSet, Splits
from snn_sparsity.networks.neurons import IFNeuron


class TinyNetwork(nn.Module):
    """Every kind of operation once or twice: spikes [T,N,3,H,W] to outputs [T,N,K]."""

    def __init__(self, num_classes: int = 4, pool: str = "max") -> None:
        super().__init__()
        self.num_classes = num_classes
        self.conv1 = layer.Conv2d(3, 8, kernel_size=5, stride=2, padding=2, bias=False)
        self.bn1 = layer.BatchNorm2d(8)
        self.sn1 = IFNeuron().build()
        self.maxpool = layer.MaxPool2d(3, 2, 1) if pool == "max" else layer.AvgPool2d(3, 2, 1)
        self.conv2 = layer.Conv2d(8, 16, kernel_size=3, stride=2, padding=1, bias=False)
        self.bn2 = layer.BatchNorm2d(16)
        self.sn2 = IFNeuron().build()
        self.avgpool = layer.AdaptiveAvgPool2d((1, 1))
        self.fc = layer.Linear(16, num_classes)
        functional.set_step_mode(self, "m")

    def forward(self, spikes):
        x = self.maxpool(self.sn1(self.bn1(self.conv1(spikes))))
        x = self.avgpool(self.sn2(self.bn2(self.conv2(x))))
        return self.fc(x.flatten(2))


def colourful(count: int, num_classes: int, seed: int) -> ImageSet:
    """Noise around a colour of each class: learnable in a few steps."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(num_classes, (count,), generator=generator)
    colours = torch.randint(40, 216, (num_classes, 3, 1, 1), generator=torch.Generator().manual_seed(7))
    noise = torch.randint(-40, 40, (count, 3, 32, 32), generator=generator)
    return ImageSet((colours[labels] + noise).clamp(0, 255).to(torch.uint8), labels)


@dataclass(kw_only=True, eq=False)
class TinyDataModule(SpikeDataModule):
    """Coloured noise in any number of classes."""

    classes: int = 4
    train_images: int = 40
    test_images: int = 20

    @property
    def num_classes(self) -> int:
        return self.classes

    @property
    def class_names(self) -> list[str]:
        return [str(index) for index in range(self.classes)]

    def load(self) -> Splits:
        return Splits(colourful(self.train_images, self.classes, 1), colourful(self.test_images, self.classes, 2))

"""SEW-ResNet: spikes are added to spikes around each residual block."""

from typing import Literal

from spikingjelly.activation_based.model import sew_resnet

from snn_sparsity.networks.neurons import IFNeuron
from snn_sparsity.networks.resnet import FIRST_BOTTLENECK_DEPTH, LAYERS, Depth, Pool, Stem, check_resnet, finish_stem
from snn_sparsity.validation import require_choice

PAPER_NEURON = IFNeuron(detach_reset=True)


class SEWResNet(sew_resnet.SEWResNet):  # type: ignore[misc]  # SpikingJelly ships no types
    """SEW-ResNet in multi-step mode: spikes [T,N,3,H,W] in, outputs [T,N,K] out.

    Source: Fang et al., arXiv 2102.04159; the paper's stem pooling (its section 4.3) is ``pool``. State-dict names are
    torchvision's. ``pool="avg"`` swaps the stem's max pooling for average pooling of the same window.

    Args:
        depth: Number of layers: 18, 34, 50, 101 or 152.
        num_classes: K, 2 to 100,000.
        pool: Pooling at the stem.
        connect: How a block's output meets its shortcut: ADD, AND or IAND.
        stem: ``imagenet`` (the paper's) or ``cifar``.
        neuron: Every spiking neuron of the network.

    Raises:
        InputError: For a value not allowed.

    Example:
        >>> import torch
        >>> SEWResNet(depth=18, num_classes=10)(torch.zeros(4, 2, 3, 32, 32)).shape
        torch.Size([4, 2, 10])
    """

    def __init__(
        self,
        depth: Depth = 18,
        num_classes: int = 10,
        pool: Pool = "max",
        connect: Literal["ADD", "AND", "IAND"] = "ADD",
        stem: Stem = "imagenet",
        neuron: IFNeuron = PAPER_NEURON,
    ) -> None:
        check_resnet(depth, num_classes, pool, stem)
        require_choice("connect", connect, ("ADD", "AND", "IAND"))
        block = sew_resnet.Bottleneck if depth >= FIRST_BOTTLENECK_DEPTH else sew_resnet.BasicBlock
        super().__init__(block, LAYERS[depth], num_classes, cnf=connect, spiking_neuron=neuron.build)
        self.num_classes = num_classes
        finish_stem(self, pool, stem)

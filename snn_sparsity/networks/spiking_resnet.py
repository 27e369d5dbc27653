"""Spiking-ResNet: a ResNet whose activations are spiking neurons."""

from spikingjelly.activation_based.model import spiking_resnet

from snn_sparsity.networks.neurons import IFNeuron
from snn_sparsity.networks.resnet import FIRST_BOTTLENECK_DEPTH, LAYERS, Depth, Pool, Stem, check_resnet, finish_stem

PAPER_NEURON = IFNeuron(detach_reset=False)


class SpikingResNet(spiking_resnet.SpikingResNet):  # type: ignore[misc]  # SpikingJelly ships no types
    """Spiking-ResNet in multi-step mode: spikes [T,N,3,H,W] in, outputs [T,N,K] out.

    Source: Hu et al., arXiv 1805.01352, as the paper uses it. Membrane potentials are added before the last neuron of a
    block; the reset is part of the backward pass, as in the authors' code. State-dict names are torchvision's.

    Args:
        depth: Number of layers: 18, 34, 50, 101 or 152.
        num_classes: K, 2 to 100,000.
        pool: Pooling at the stem.
        stem: ``imagenet`` (the paper's) or ``cifar``.
        neuron: Every spiking neuron of the network.

    Raises:
        InputError: For a value not allowed.

    Example:
        >>> import torch
        >>> SpikingResNet(depth=18, num_classes=10)(torch.zeros(4, 2, 3, 32, 32)).shape
        torch.Size([4, 2, 10])
    """

    def __init__(
        self,
        depth: Depth = 18,
        num_classes: int = 10,
        pool: Pool = "max",
        stem: Stem = "imagenet",
        neuron: IFNeuron = PAPER_NEURON,
    ) -> None:
        check_resnet(depth, num_classes, pool, stem)
        block = spiking_resnet.Bottleneck if depth >= FIRST_BOTTLENECK_DEPTH else spiking_resnet.BasicBlock
        super().__init__(block, LAYERS[depth], num_classes, spiking_neuron=neuron.build)
        self.num_classes = num_classes
        finish_stem(self, pool, stem)

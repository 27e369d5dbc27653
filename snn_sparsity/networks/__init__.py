"""Spiking networks: spikes [T,N,C,H,W] in, outputs [T,N,K] out."""

from snn_sparsity.networks.leaky import LeakyNeuron
from snn_sparsity.networks.neurons import IFNeuron
from snn_sparsity.networks.rate_twin import rate_twin
from snn_sparsity.networks.sew_resnet import SEWResNet
from snn_sparsity.networks.spiking_resnet import SpikingResNet
from snn_sparsity.networks.vgg import VGG
from snn_sparsity.networks.wide_resnet import WideResNet

__all__ = ["VGG", "IFNeuron", "LeakyNeuron", "SEWResNet", "SpikingResNet", "WideResNet", "rate_twin"]

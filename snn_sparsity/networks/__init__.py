"""Spiking networks: spikes [T,N,C,H,W] in, outputs [T,N,K] out."""

from snn_sparsity.networks.neurons import IFNeuron
from snn_sparsity.networks.rate_twin import rate_twin
from snn_sparsity.networks.sew_resnet import SEWResNet
from snn_sparsity.networks.spiking_resnet import SpikingResNet

__all__ = ["IFNeuron", "SEWResNet", "SpikingResNet", "rate_twin"]

"""Train spiking ResNets, watch their gradients, attack them, and say how far the result can be believed."""

__version__ = "0.1.0"

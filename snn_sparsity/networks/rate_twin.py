"""The network that a spiking network approximates: the same weights, firing rates instead of spikes."""

from copy import deepcopy

from spikingjelly.activation_based import neuron
from torch import Tensor, nn


class ClippedRate(nn.Module):
    """The firing rate of an integrate-and-fire neuron at a constant input: ``clip(x / V_th, 0, 1)``.

    That of a soft reset after many time steps; with a hard reset the neuron loses what is above the threshold and fires less.

    Args:
        threshold: V_th, above 0.
    """

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, x: Tensor) -> Tensor:
        """Return the rate, of the shape of x."""
        return (x / self.threshold).clamp(0, 1)


def rate_twin(network: nn.Module) -> nn.Module:
    """Return a copy of a spiking network in which every neuron is a :class:`ClippedRate` and time is averaged away at the input.

    Its gradient is that of a plain network with the same weights, free of surrogates: a source for ``Transfer``. From Bu et al., CVPR
    2023, whose attack has such a twin as a special case. Leaks are left out.

    Args:
        network: Maps [T,N,C,H,W] to [T,N,K]; a :class:`~snn_sparsity.classifier.SpikingClassifier` around the twin makes logits of it.
            It is not touched.

    Returns:
        Maps [T,N,C,H,W] to [1,N,K], for any T; its state dict has the names of the network's (but for neurons with weights).

    Example:
        >>> import torch
        >>> twin = rate_twin(nn.Sequential(neuron.IFNode(v_threshold=2.0, step_mode="m")))
        >>> twin(torch.tensor([[[1.0, 3.0]], [[0.0, 3.0]]])).tolist()
        [[[0.25, 1.0]]]
    """
    twin = deepcopy(network)
    for path, module in list(twin.named_modules(remove_duplicate=False)):
        if isinstance(module, (neuron.BaseNode, neuron.SimpleBaseNode)):
            twin.set_submodule(path, ClippedRate(float(module.v_threshold)))
    twin.register_forward_pre_hook(_mean_over_time)
    return twin


def _mean_over_time(network: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (inputs[0].mean(0, keepdim=True),)


class MeanOverTime(nn.Module):
    """A network without state as a classifier: the time-mean of its outputs.

    Args:
        network: Maps [T,N,C,H,W] to [T',N,K].
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, spikes: Tensor) -> Tensor:
        """Return the logits [N,K]."""
        logits: Tensor = self.network(spikes).mean(0)
        return logits

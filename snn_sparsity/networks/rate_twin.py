"""The network that a spiking network approximates: the same weights, firing rates instead of spikes."""

from copy import deepcopy

import torch.nn.functional as F
from spikingjelly.activation_based import neuron
from torch import Tensor, nn

from snn_sparsity.validation import require_number


class ClippedRate(nn.Module):
    """The firing rate of an integrate-and-fire neuron at a constant input: ``clip(x / V_th, 0, 1)``.

    That of a soft reset after many time steps; with a hard reset the neuron loses what is above the threshold and fires less.

    Args:
        threshold: V_th, above 0.
        levels: Round to this many levels above 0, with the gradient of what is rounded (SR's T=0 mode has 8); null is none.

    Raises:
        InputError: For levels below 1.

    Example:
        >>> import torch
        >>> ClippedRate(1.0, levels=8)(torch.tensor([-1.0, 0.3, 2.0])).tolist()
        [0.0, 0.25, 1.0]
    """

    def __init__(self, threshold: float, levels: int | None = None) -> None:
        super().__init__()
        if levels is not None:
            require_number("levels", levels, at_least=1, whole=True)
        self.threshold, self.levels = threshold, levels

    def forward(self, x: Tensor) -> Tensor:
        """Return the rate, of the shape of x."""
        rate = F.hardtanh(x / self.threshold, 0, 1)
        if self.levels is None:
            return rate
        return rate + ((rate * self.levels).round() / self.levels - rate).detach()


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

"""Anybody's network as the audit knows one: spikes [T,N,...] to logits [N,K], its neurons reset before and after."""

from typing import Any

import torch
from spikingjelly.activation_based import base
from torch import Tensor, nn

from snn_sparsity.gradient_rules.base import is_snntorch
from snn_sparsity.validation import InputError


class Adapted(nn.Module):
    """A network of any library; the model is left as it is.

    Args:
        model: From images [N,C,H,W] in [0,1], or from spikes [T,N,...], to logits [N,K], [T,N,K], or a tuple that begins with one of them.
        timed: Whether it takes spikes [T,N,...] rather than images.

    Example:
        >>> import torch
        >>> Adapted(nn.Flatten())(torch.zeros(1, 2, 1, 1, 3)).shape
        torch.Size([2, 3])
    """

    def __init__(self, model: nn.Module, timed: bool = False) -> None:
        super().__init__()
        self.model = model
        self.timed = timed

    def forward(self, spikes: Tensor) -> Tensor:
        """Return the logits [N,K] of spikes [T,N,...].

        Raises:
            InputError: If the model returns something else than logits for each image.
        """
        reset(self.model)
        try:
            output = self.model(spikes if self.timed else spikes[0])
        finally:
            reset(self.model)
        return logits_of(output, spikes.shape[1])


def reset(model: nn.Module) -> None:
    """Put every neuron that remembers to rest: SpikingJelly's and snnTorch's."""
    for module in model.modules():
        if isinstance(module, base.MemoryModule):
            module.reset()
        elif is_snntorch(module) and hasattr(module, "reset_mem"):
            # Not snnTorch's utils.reset: it overlooks neurons inside other modules, and resets those of other networks.
            module.reset_mem()  # type: ignore[operator]


def logits_of(output: Any, count: int) -> Tensor:
    """Return logits [N,K] of what a model returned: a tensor, or the first of a tuple; over time it is averaged.

    Raises:
        InputError: For something else.

    Example:
        >>> import torch
        >>> logits_of((torch.ones(4, 2, 3), None), 2).shape
        torch.Size([2, 3])
    """
    first = output[0] if isinstance(output, (tuple, list)) and output else output
    if isinstance(first, Tensor) and first.ndim == 3 and first.shape[1] == count:
        first = first.mean(0)
    if not isinstance(first, Tensor) or first.ndim != 2 or len(first) != count:
        shape = list(first.shape) if isinstance(first, Tensor) else type(first).__name__
        raise InputError(f"the model returns {shape} for {count} images: the audit needs logits [N,K] or [T,N,K]")
    return first


def classes_of(classifier: nn.Module, spikes: Tensor, labels: Tensor) -> int:
    """Return K, how many classes a classifier knows, by asking it about a few spike trains [T,N,...].

    Raises:
        InputError: If it does not take them, or knows fewer classes than the labels [n] have.

    Example:
        >>> classes_of(Adapted(nn.Flatten()), torch.zeros(1, 2, 1, 1, 3), torch.tensor([0, 2]))
        3
    """
    try:
        with torch.no_grad():
            count = int(classifier(spikes).shape[1])
    except InputError:
        raise
    except Exception as error:  # whatever the network, or torch in it, raises
        shape = list(spikes.shape[2:])
        raise InputError(
            f"the network does not take images {shape}: {' '.join(str(error).split())[:200] or type(error).__name__}"
        ) from error
    if count <= int(labels.max()):
        raise InputError(f"the network knows {count} classes, and there is a label {int(labels.max())}")
    return count

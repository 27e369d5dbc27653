"""Anybody's network as the audit knows one: spikes [T,N,...] to logits [N,K], its neurons reset before and after."""

from collections.abc import Mapping
from typing import Any

import torch
from spikingjelly.activation_based import base
from torch import Tensor, nn

from snn_sparsity.encoders.base import grey_levels
from snn_sparsity.gradient_rules.base import is_snntorch
from snn_sparsity.validation import InputError


class Adapted(nn.Module):
    """A network of any library; the model is left as it is.

    Args:
        model: From images [N,C,H,W] in [0,1], or from spikes [T,N,...], to logits [N,K], [T,N,K], or a tuple that begins with one of them,
            or a dictionary with ``logits``.
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

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the model: that of its first parameter that is no whole number."""
        return next((parameter.dtype for parameter in self.model.parameters() if parameter.is_floating_point()), torch.float32)

    def forward(self, spikes: Tensor) -> Tensor:
        """Return the logits [N,K] of spikes [T,N,...].

        Raises:
            InputError: If the model returns something else than logits for each image.
        """
        reset(self.model)
        # A copy: a network may work in place. In its own precision.
        x = (spikes if self.timed else spikes[0]).clone().to(self.dtype)
        try:
            output = self.model(x)
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
            module.reset_mem()  # type: ignore[operator]  # snnTorch has no types


def logits_of(output: Any, count: int) -> Tensor:
    """Return logits [N,K] of what a model returned: a tensor, the first of a tuple, ``logits`` of a dictionary; averaged over time.

    Raises:
        InputError: For something else.

    Example:
        >>> import torch
        >>> logits_of((torch.ones(4, 2, 3), None), 2).shape
        torch.Size([2, 3])
    """
    output = output["logits"] if isinstance(output, Mapping) and "logits" in output else output
    first = output[0] if isinstance(output, (tuple, list)) and output else output
    if isinstance(first, Tensor) and first.ndim == 3 and first.shape[1] == count:
        first = first.mean(0)
    if not isinstance(first, Tensor) or first.ndim != 2 or len(first) != count:
        shape = list(first.shape) if isinstance(first, Tensor) else type(first).__name__
        raise InputError(f"the model returns {shape} for {count} images: the audit needs logits [N,K] or [T,N,K]")
    return first.float()


def classes_of(classifier: nn.Module, spikes: Tensor, labels: Tensor) -> int:
    """Return K, how many classes a classifier knows, by asking it about a few spike trains [T,N,...] and their gradient.

    Raises:
        InputError: If it does not take them, computes in a way that no gradient can follow, or does not know the classes of the labels [n].

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
        raise InputError(f"the network does not take images {list(spikes.shape[2:])}: {_told(error)}") from error
    try:
        x = spikes.detach().clone().requires_grad_()
        logits = classifier(x)
        if logits.requires_grad:
            torch.autograd.grad(logits.sum(), x, allow_unused=True)
    except Exception as error:
        raise InputError(f"the network cannot be attacked, no gradient can be taken of it: {_told(error)}") from error
    if count < 2:
        raise InputError(f"the network knows {count} class: an audit needs logits [N,K] of two or more")
    if not 0 <= int(labels.min()) <= int(labels.max()) < count:
        wrong = labels[(labels < 0) | (labels >= count)][0]
        raise InputError(f"the network knows {count} classes, and there is a label {int(wrong)}")
    return count


def images_and_labels(images: Any, labels: Any) -> tuple[Tensor, Tensor]:
    """Return images [n,C,H,W] uint8 and labels [n] int64 of what somebody calls so: tensors, or arrays.

    Raises:
        InputError: For anything else, or none.

    Example:
        >>> images_and_labels(torch.rand(2, 3, 4, 4), torch.tensor([1, 0], dtype=torch.int32))[1]
        tensor([1, 0])
    """
    try:
        images, labels = torch.as_tensor(images), torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"images and labels must be tensors: {_told(error)}") from error
    if labels.ndim != 1 or labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise InputError(
            f"labels of shape {list(labels.shape)} and type {labels.dtype} are not allowed: give [n], the number of each class"
        )
    if images.ndim != 4 or len(images) != len(labels) or not len(labels):
        raise InputError(f"images are {list(images.shape)}, and there are {len(labels)} labels: give images [n,C,H,W] and as many labels")
    return grey_levels(images), labels.long()


def _told(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__

"""Where a module is, and the mode that it runs in for a while."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from snn_sparsity.protocols import BatchNormMode


def device_of(module: nn.Module) -> torch.device:
    """Return where a module is: its first parameter or buffer; the CPU, if it has none.

    Example:
        >>> device_of(nn.ReLU())
        device(type='cpu')
    """
    tensors = chain(module.parameters(), module.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def modules_of(network: nn.Module) -> list[nn.Module]:
    """Return what ``network.modules()`` yields, in another order and a quarter of the time: attacks ask at each pass.

    Example:
        >>> len(modules_of(nn.Sequential(nn.ReLU(), nn.ReLU())))
        3
    """
    found: dict[nn.Module, None] = {}
    left: list[nn.Module] = [network]
    while left:
        module = left.pop()
        if module not in found:
            found[module] = None
            left += [part for part in module._modules.values() if part is not None]
    return list(found)


@contextmanager
def evaluating(classifier: nn.Module, batch_norm: BatchNormMode = "eval") -> Iterator[None]:
    """Put every module in eval mode (BatchNorm in training mode for ``batch``), and each back as it was."""
    before = [(module, module.training) for module in modules_of(classifier)]
    # Attacks ask for this hundreds of times, mostly of modules that are so already, and PyTorch is slow to set an attribute.
    try:
        for module, training in before:
            wanted = batch_norm == "batch" and isinstance(module, _BatchNorm)
            if training != wanted:
                module.training = wanted
        yield
    finally:
        for module, training in before:
            if module.training != training:
                module.training = training

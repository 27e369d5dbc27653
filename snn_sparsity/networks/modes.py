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


@contextmanager
def evaluating(classifier: nn.Module, batch_norm: BatchNormMode = "eval") -> Iterator[None]:
    """Put every module in eval mode (BatchNorm in training mode for ``batch``), and each back as it was."""
    before = [(module, module.training) for module in classifier.modules()]
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

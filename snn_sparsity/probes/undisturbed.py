"""What measuring leaves as it was: weights, gradients, statistics, modes and random numbers."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging

from snn_sparsity.networks.modes import evaluating
from snn_sparsity.networks.sync_batch_norm import each_by_itself


@contextmanager
def undisturbed(classifier: LightningModule) -> Iterator[None]:
    """Turn gradients on, modules to eval mode and autocast off; afterwards put back every flag, buffer, ``.grad`` and random state.

    The random states are PyTorch's, NumPy's and Python's. Float32 matters: in half precision small gradients underflow and would be
    counted as sparsity.
    """
    device = classifier.device
    buffers = [(buffer, buffer.clone()) for buffer in classifier.buffers()]
    gradients = [(parameter, parameter.grad, parameter.requires_grad) for parameter in classifier.parameters()]
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        for parameter, _, _ in gradients:
            parameter.grad = None
        with (
            torch.random.fork_rng([device] if device.type == "cuda" else []),
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.autocast(device.type, enabled=False),
            evaluating(classifier),
            each_by_itself(classifier),
        ):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        for parameter, gradient, required in gradients:
            parameter.grad = gradient
            parameter.requires_grad_(required)


@contextmanager
def lent_momentum(trainer: Trainer) -> Iterator[None]:
    """Give BatchNorms back the momentum that StochasticWeightAveraging takes from them for its last epoch, which averages statistics."""
    callbacks: list[Callback] = getattr(trainer, "callbacks", [])
    averaging = [callback for callback in callbacks if isinstance(callback, StochasticWeightAveraging)]
    taken = {module: momentum for callback in averaging for module, momentum in callback.momenta.items()}
    before = {module: module.momentum for module in taken}
    try:
        for module, momentum in taken.items():
            module.momentum = momentum
        yield
    finally:
        for module, momentum in before.items():
            module.momentum = momentum

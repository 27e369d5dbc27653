"""The loop that was published with the paper (arXiv 2509.23762), as it was written: for SpikingJelly of then.

A neuron's time step is a handful of PyTorch's operations, its surrogate one of them, called once a time step as in SpikingJelly 0.0.0.0.14.
All else is ``baseline.py``, whose neurons run all time steps in one function of today's SpikingJelly.
"""

from typing import Any

import torch
from spikingjelly.activation_based import layer, neuron
from torch import Tensor, nn

from benchmarks.baseline import Loop


class PublishedLoop(Loop):
    """Train, evaluate and attack SEW-ResNet18 at the sizes of some work, neurons step by step."""

    @staticmethod
    def spiking_neuron(**settings: Any) -> nn.Module:
        """Return a layer of neurons."""
        return layer.MultiStepContainer(StepwiseIFNode(**settings))


class StepwiseIFNode(neuron.IFNode):  # type: ignore[misc]  # SpikingJelly ships no types
    """``IFNode`` with a detached reset, one operation after the other."""

    def single_step_forward(self, x: Tensor) -> Tensor:
        """Return the spikes of one time step, of the shape of x."""
        potential = (self.v if isinstance(self.v, Tensor) else torch.zeros_like(x)) + x
        spikes: Tensor = self.surrogate_function(potential - self.v_threshold)
        fired = spikes.detach()
        self.v = (1 - fired) * potential + fired * self.v_reset
        return spikes

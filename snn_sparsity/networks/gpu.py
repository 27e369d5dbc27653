"""Which of SpikingJelly's kernels runs the neurons on a GPU: tried before it is relied on."""

import importlib
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from spikingjelly.activation_based import neuron, surrogate

from snn_sparsity.networks.native import warn_once

KERNELS = ("if_", "lif", "plif")
"""SpikingJelly's packages of the neurons in use."""


@cache
def settle_kernels(device: torch.device, trial: Callable[[torch.device], None] | None = None) -> None:
    """Launch the neurons' kernel once on a GPU; where that fails, let SpikingJelly's loop in PyTorch run, with one line in the log.

    SpikingJelly chooses Triton where it can be imported; without a C compiler or Python's headers its first launch fails, in the middle
    of a run. ``SpikingClassifier`` and ``ImageClassifier`` call this at each forward pass, whoever asks for it: the trial is made at the
    first on a device.

    Args:
        device: On a CPU nothing is done.
        trial: What is tried; None is a layer of neurons, forward and backward.
    """
    if device.type != "cuda":
        return
    try:
        (trial or _one_layer)(device)
    except Exception as error:  # noqa: BLE001  # whatever the compilers and the driver raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        warn_once(f"SpikingJelly's kernel for neurons does not run on {device} ({reason}): its loop in PyTorch runs instead, slower")
        for name in KERNELS:
            selection: Any = importlib.import_module(f"spikingjelly._ops.{name}")._selection
            selection._requested = "torch"
            selection._selections.clear()


def _one_layer(device: torch.device) -> None:
    node = neuron.IFNode(surrogate_function=surrogate.ATan(), detach_reset=True, step_mode="m")
    # The first forward pass may be one that wants no gradient.
    with torch.inference_mode(False), torch.enable_grad():
        x = torch.full((2, 4), 0.6, device=device, requires_grad=True)
        spikes = node(x)
        (gradient,) = torch.autograd.grad(spikes.sum(), x)
    if spikes.sum().item() != 4 or not bool(gradient.isfinite().all()):
        raise RuntimeError("it gives wrong spikes")

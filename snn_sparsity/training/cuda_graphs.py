"""The passes of a training step replayed as a CUDA graph, for networks whose kernels are shorter than the time to launch them."""

from collections.abc import Callable
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from spikingjelly.activation_based import functional
from torch import Tensor, nn

from snn_sparsity.validation import InputError


class CUDAGraphs(Callback):
    """Replay the network's forward and backward pass of training, each one launch, instead of hundreds of launches from Python.

    The first batch is captured; batches of another size, hooked networks, validation, attacks and probes run as ever. The kernels are the
    same, in the same order, so losses are too. A step of 16 images of SEW-ResNet18 is mostly launches: ``docs/performance.md`` has what
    was measured.

    Raises:
        InputError: When training starts, if there is no GPU, more than one process, a precision other than float32 (a replay knows no
            autocast), or accumulated gradients (a replay writes its gradients over those of the last).

    Example:
        >>> from lightning import Trainer
        >>> trainer = Trainer(callbacks=[CUDAGraphs()], accelerator="cpu", logger=False)

        On the command line: ``snn-sparsity fit ... --trainer.callbacks+ CUDAGraphs``.
    """

    def __init__(self) -> None:
        self._replayed: Replayed | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what cannot be replayed."""
        reasons = {
            "it needs a GPU": pl_module.device.type != "cuda",
            "it is for one process": trainer.world_size > 1,
            f"it is for float32, not {trainer.precision}": trainer.precision != "32-true",
            "it cannot accumulate gradients": trainer.accumulate_grad_batches != 1,
        }
        for reason, holds in reasons.items():
            if holds:
                raise InputError(f"CUDAGraphs: {reason}; leave the callback out")
        network: Any = pl_module.network
        self._replayed = Replayed(network)

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Let the classifier's passes be replayed in this step, and nowhere else."""
        pl_module.replayed = self._replayed

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """End it."""
        pl_module.replayed = None

    def teardown(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Free the graph's memory."""
        pl_module.replayed = self._replayed = None


class Replayed:
    """A network whose training passes are replayed where they are those that were captured.

    Args:
        network: Maps [T,N,...] to [T,N,K]; on a GPU.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._modules = list(network.modules())
        self._shape: torch.Size | None = None
        self._passes: Callable[[Tensor], Tensor] = network

    def __call__(self, x: Tensor) -> Tensor:
        """Return the network's outputs of x."""
        trains = self._network.training and torch.is_grad_enabled() and not x.requires_grad
        if not trains or any(module._forward_hooks or module._forward_pre_hooks for module in self._modules):
            outputs: Tensor = self._network(x)
            return outputs
        if self._shape is None:
            # Warming up for the capture moves neither BatchNorm's statistics nor the random numbers.
            before = [buffer.clone() for buffer in self._network.buffers()]
            capture: Any = torch.cuda.make_graphed_callables
            with torch.random.fork_rng([x.device] if x.is_cuda else []):
                self._passes = capture(FreshPass(self._network), (x.clone(),), allow_unused_input=True)
            with torch.no_grad():
                for buffer, value in zip(self._network.buffers(), before, strict=True):
                    buffer.copy_(value)
            functional.reset_net(self._network)
            self._shape = x.shape
        return self._passes(x) if x.shape == self._shape else self._network(x)


class FreshPass(nn.Module):
    """One pass of a network with neurons reset before it: what is captured.

    It has forward and mode of its own, because capturing replaces the one and is bound to the other.

    Args:
        network: Maps [T,N,...] to [T,N,K].
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's outputs of x."""
        functional.reset_net(self.network)
        outputs: Tensor = self.network(x)
        return outputs

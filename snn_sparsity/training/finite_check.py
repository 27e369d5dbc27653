"""Training stops at the first loss or gradient that is NaN or infinite, and says where it came from."""

from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from snn_sparsity.batch import SpikeBatch
from snn_sparsity.measure.nonfinite import first_nonfinite
from snn_sparsity.validation import RunError

LAG = 2
"""Steps after which a GPU's flag is read: it has come by then, so that nobody waits for it."""


class Step(NamedTuple):
    """A training step whose numbers have not been looked at.

    Attributes:
        number: Optimiser steps before it.
        epoch: Its epoch.
        batch_idx: Its batch of the epoch.
        batch: The batch.
        loss: Its loss, [].
        bad: [] bool, on the host once ``copied``: whether loss or gradient is NaN or infinite.
        copied: When ``bad`` has come from the GPU; None on a CPU.
    """

    number: int
    epoch: int
    batch_idx: int
    batch: SpikeBatch
    loss: Tensor
    bad: Tensor
    copied: torch.cuda.Event | None


class FiniteCheck(Callback):
    """Stop at the first training step whose loss or gradient is NaN or infinite, before it reaches the weights.

    The error names the step, the batch's images, and the module that made the first such number, found by running the batch again.
    No checkpoint is written with a weight that is NaN or infinite.

    On a GPU nobody waits for the numbers of a step: a flag on the device makes the fused optimiser leave the weights alone from the
    bad step on, and is read some steps later. With a gradient scaler (``16-mixed``) infinite gradients are ordinary, and skipped by
    the scaler: only the loss is looked at.
    """

    def __init__(self) -> None:
        self._waiting: deque[Step] = deque()
        self._batch: tuple[SpikeBatch, int] | None = None
        self._loss: Tensor | None = None
        self._bad: Tensor | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with no step waiting."""
        self._waiting.clear()
        self._bad = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: SpikeBatch, batch_idx: int) -> None:
        """Keep the batch, to run it again."""
        self._batch = batch, batch_idx

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Keep the loss."""
        self._loss = loss.detach()

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judge loss and gradient."""
        assert self._loss is not None
        assert self._batch is not None
        batch, batch_idx = self._batch
        judged = [self._loss]
        if getattr(trainer.precision_plugin, "scaler", None) is None:
            gradients = [parameter.grad for parameter in pl_module.parameters() if parameter.grad is not None]
            # The cheapest number that is NaN or infinite if one of the gradients is.
            judged.append(torch.nn.utils.get_total_norm(gradients))
        bad = ~torch.stack([number.float() for number in judged]).isfinite().all()
        self._bad = bad if self._bad is None else self._bad | bad
        step = Step(trainer.global_step, trainer.current_epoch, batch_idx, batch, self._loss, *_to_host(self._bad))
        self._waiting.append(step)
        lag = LAG if _on_gpu(bad) and all(map(_skips_bad_steps, trainer.optimizers)) else 0
        self._look(trainer, pl_module, lag)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Tell a fused optimiser on a GPU to leave the weights alone if a step was bad."""
        if self._bad is not None and _on_gpu(self._bad) and _skips_bad_steps(optimizer):
            optimizer.found_inf = self._bad.float()  # type: ignore[attr-defined]  # what GradScaler tells it too

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the last steps."""
        self._look(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Look at the last steps, and at the weights: a step with finite numbers can still overflow them."""
        self._look(trainer, pl_module)
        for name, parameter in pl_module.named_parameters():
            if not parameter.isfinite().all():
                raise RunError(f"training stopped after step {trainer.global_step}: {name} is NaN or infinite{_kept(trainer)}")

    def _look(self, trainer: Trainer, pl_module: LightningModule, lag: int = 0) -> None:
        while len(self._waiting) > lag:
            step = self._waiting.popleft()
            if step.copied is not None:
                step.copied.synchronize()
            if step.bad:
                self._waiting.clear()
                raise RunError(_describe(step, trainer, pl_module))


def _on_gpu(tensor: Tensor) -> bool:
    return tensor.is_cuda


def _to_host(flag: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    if not _on_gpu(flag):
        return flag, None
    host = flag.to("cpu", non_blocking=True)
    copied = torch.cuda.Event(blocking=True)  # who waits for it sleeps, and leaves its core to others
    copied.record()
    return host, copied


def _skips_bad_steps(optimizer: Optimizer) -> bool:
    return bool(optimizer.defaults.get("fused"))


def _describe(step: Step, trainer: Trainer, pl_module: Any) -> str:
    what = f"the loss is {step.loss.item()}" if not step.loss.isfinite() else "the gradient is NaN or infinite"
    data: Any = getattr(trainer, "datamodule", None)
    images = f"{len(step.batch.labels)} images"
    if hasattr(data, "training_images"):
        images = f"images {data.training_images(trainer.train_dataloader, step.batch_idx).tolist()} of the training set"

    def loss(spikes: Tensor) -> Tensor:
        with trainer.precision_plugin.train_step_context():
            state = pl_module.training_state(step.batch._replace(spikes=spikes), step.batch_idx)
            value: Tensor = pl_module.objective(state).loss
            return value

    origin = first_nonfinite(pl_module.network, loss, step.batch.spikes) or "no module when the batch was run again"
    return (
        f"training stopped at step {step.number} (epoch {step.epoch}, batch {step.batch_idx}): {what}; it began in {origin}; the batch "
        f"holds {images}{_kept(trainer)}"
    )


def _kept(trainer: Trainer) -> str:
    """Return where the weights of before are."""
    paths = [getattr(callback, "path", None) or getattr(callback, "best_model_path", "") for callback in trainer.checkpoint_callbacks]
    kept = [str(Path(path).resolve()) for path in paths if path and Path(path).is_file()]
    return f"; the last checkpoint is {kept[-1]}" if kept else "; there is no checkpoint yet"

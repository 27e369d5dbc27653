"""A progress bar that does not hold up what it shows."""

import time
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

from snn_sparsity.measure.names import TRAIN_LOSS

SECONDS = 0.5
"""Between two looks at the numbers: each look waits for the GPU."""
LOSSES = (f"{TRAIN_LOSS}_step", f"{TRAIN_LOSS}_epoch")
PLAIN_PASSES = 2
"""Forward and backward: the passes of plain training."""


class QuietProgressBar(TQDMProgressBar):
    """Lightning's bar, drawn twice a second instead of at every step, and without a run's number, which no one asked for.

    Attributes:
        reads_loss: The loss is read when the bar is drawn; other bars are handed it at every step.
    """

    reads_loss = True

    def __init__(self) -> None:
        super().__init__()
        self._drawn = 0.0

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, int | str | float | dict[str, float]]:
        """Return what stands behind the bar: losses, passes of a step where they are not those of plain training, accuracies."""
        shown = super().get_metrics(trainer, pl_module)
        shown.pop("v_num", None)
        passes = sum(getattr(getattr(pl_module, "objective", None), "passes", (PLAIN_PASSES,)))
        if passes != PLAIN_PASSES:
            shown = {"passes": passes, **shown}
        return {name: float(trainer.callback_metrics[name]) for name in LOSSES if name in trainer.callback_metrics} | shown

    def _should_update(self, current: int, total: int) -> bool:
        now: Any = time.monotonic()
        if not self.is_enabled or (current != total and now - self._drawn < SECONDS):
            return False
        self._drawn = now
        return True

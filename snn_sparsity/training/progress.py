"""A progress bar that does not hold up what it shows."""

import time
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

SECONDS = 0.5
"""Between two looks at the numbers: each look waits for the GPU."""


class QuietProgressBar(TQDMProgressBar):
    """Lightning's bar, drawn twice a second instead of at every step, and without a run's number, which no one asked for."""

    def __init__(self) -> None:
        super().__init__()
        self._drawn = 0.0

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, int | str | float | dict[str, float]]:
        """Return what stands behind the bar."""
        shown = super().get_metrics(trainer, pl_module)
        shown.pop("v_num", None)
        return shown

    def _should_update(self, current: int, total: int) -> bool:
        now: Any = time.monotonic()
        if not self.is_enabled or (current != total and now - self._drawn < SECONDS):
            return False
        self._drawn = now
        return True

"""Ctrl-C and SIGTERM end all processes of a run."""

import signal

from lightning import Callback, LightningModule, Trainer

from snn_sparsity.runs.interrupts import Interrupted


class StopTogether(Callback):
    """Let a stopped process end the others that it started, and keep Lightning's own answer to SIGTERM out of it.

    Lightning has all processes meet inside the handler of the signal, whatever they were in the middle of: where that was a meeting
    too, each would wait for what the other never sends.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Note the handler that was there before Lightning's."""
        self.handler = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put it back."""
        signal.signal(signal.SIGTERM, self.handler)

    on_validation_start = on_test_start = on_train_start

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Pass a stop on."""
        launcher = trainer.strategy.launcher
        if isinstance(exception, Interrupted) and launcher is not None:
            launcher.kill(signal.SIGTERM)

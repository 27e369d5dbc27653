"""The figures of a run, into TensorBoard while it trains."""

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from snn_sparsity.training.metrics_logger import MetricsCSV
from snn_sparsity.validation import require_number


class Figures(Callback):
    """Draw every figure the run has metrics for, as ``figures/<name>`` in TensorBoard's images.

    Args:
        every_n_epochs: Draw after every n-th epoch, and after the last.

    Raises:
        InputError: For a number below 1.
    """

    def __init__(self, every_n_epochs: int = 5) -> None:
        require_number("every_n_epochs", every_n_epochs, at_least=1, whole=True)
        self.every_n_epochs = every_n_epochs

    @rank_zero_only
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw, if this epoch is due."""
        if (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._draw(trainer)

    @rank_zero_only
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the last epoch, whatever made it the last."""
        if trainer.current_epoch % self.every_n_epochs:
            self._draw(trainer)

    def _draw(self, trainer: Trainer) -> None:
        """Draw from the metrics that are on disk."""
        metrics = next((logger for logger in trainer.loggers if isinstance(logger, MetricsCSV)), None)
        if metrics is None or not metrics.path.exists():
            return
        from snn_sparsity.figures import available, figure_of, read_run

        run = read_run(metrics.path.parent)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                for name in available(run):
                    logger.experiment.add_figure(f"figures/{name}", figure_of(name, [run]), trainer.global_step)

"""Make runs readable in TensorBoard: grouped charts, comparable hyperparameters, nothing lost when a run is killed."""

from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from snn_sparsity.measure.operations import KINDS
from snn_sparsity.measure.surrogates import SURROGATE
from snn_sparsity.probes.adversarial_accuracy import AdversarialAccuracy
from snn_sparsity.probes.base import probes_of


class TensorBoardLayout(Callback):
    """Write the custom-scalars layout and the HPARAMS entry of a run, and flush at each epoch."""

    @rank_zero_only
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write layout and hyperparameters."""
        probes = [probe for probe in probes_of(trainer) if isinstance(probe, AdversarialAccuracy)]
        for logger in _tensorboards(trainer):
            logger.experiment.add_custom_scalars(layout(probes))
            data = getattr(trainer, "datamodule", None)
            hyperparameters: dict[str, Any] = {**pl_module.hparams, **getattr(data, "hparams", {})}
            # The final values are logged under these names later; NaN holds the place until then.
            names = ["val/accuracy", *(f"{probe.name}/accuracy" for probe in probes)]
            logger.log_hyperparams(hyperparameters, dict.fromkeys(names, float("nan")))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the epoch on disk."""
        flush(trainer)


def layout(probes: list[AdversarialAccuracy]) -> dict[str, dict[str, list[Any]]]:
    """Return TensorBoard's custom-scalars layout: accuracies by protocol and space, and one chart per kind and statistic."""
    charts: dict[str, dict[str, list[Any]]] = {"accuracy": {"clean": ["Multiline", [r"(val|test)/accuracy"]]}}
    for probe in probes:
        title = f"{probe.space}, BatchNorm {probe.batch_norm}"
        chart = charts["accuracy"].setdefault(title, ["Multiline", [r"val/accuracy"]])
        chart[1].append(f"{probe.name}/accuracy")
    for statistic, title in (("zero", "gradient zeros"), ("norm", "gradient norm")):
        charts[title] = {"mean of each kind": ["Multiline", [f"grad_{statistic}_mean/.*"]]}
        for kind in ("input", *KINDS, SURROGATE):
            charts[title][kind] = ["Multiline", [f"grad_{statistic}/{kind}/.*"]]
    return charts


def flush(trainer: Trainer) -> None:
    """Put on disk what was logged so far."""
    for logger in _tensorboards(trainer):
        logger.experiment.flush()


def _tensorboards(trainer: Trainer) -> list[TensorBoardLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]

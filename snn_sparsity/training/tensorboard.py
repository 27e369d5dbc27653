"""Make runs readable in TensorBoard: three groups to read first, comparable settings, nothing lost when a run is killed."""

import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.tensorboard.summary import hparams

from snn_sparsity.measure.names import ACCURACY, CLEAN_ACCURACY, GRAD_NORM, GRAD_ZERO, accuracy_of, mean_of
from snn_sparsity.measure.operations import INPUT, KINDS
from snn_sparsity.probes.adversarial_accuracy import AdversarialAccuracy
from snn_sparsity.probes.base import probes_of

ACCURACIES, ZEROS, NORM = "1 accuracy", "2 gradient zeros by kind", "3 gradient norm by kind"
"""The groups to read first: TensorBoard sorts groups by name."""


class Curves(TensorBoardLogger):
    """TensorBoard's events, with what a person reads first once more under names that come first; HPARAMS is the layout's affair."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Write values, and those to read first twice."""
        first = {title: value for name, value in metrics.items() if (title := read_first(name))}
        super().log_metrics({**metrics, **first}, step)

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: Lightning would write every setting, and a NaN for each accuracy to come."""


def read_first(name: str) -> str | None:
    """Return the name in the groups to read first, None for all others.

    Example:
        >>> read_first("val/accuracy"), read_first("pgd/accuracy"), read_first("grad_zero_mean/conv"), read_first("grad_zero/conv/01_conv1")
        ('1 accuracy/clean', '1 accuracy/pgd', '2 gradient zeros by kind/conv', None)
    """
    group, _, rest = name.partition("/")
    if rest == ACCURACY:
        return f"{ACCURACIES}/{'clean' if group == 'val' else group}"
    title = {mean_of(GRAD_ZERO): ZEROS, mean_of(GRAD_NORM): NORM}.get(group)
    return f"{title}/{rest}" if title else None


class TensorBoardLayout(Callback):
    """Write the custom-scalars layout and the HPARAMS entry of a run, and flush at each epoch."""

    @rank_zero_only
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write layout and settings."""
        probes = [probe for probe in probes_of(trainer) if isinstance(probe, AdversarialAccuracy)]
        names = [accuracy_of("val"), *(accuracy_of(str(probe.name)) for probe in probes)]
        # Values go to these names as they are measured; here only the names are told.
        entries = hparams(columns(trainer, pl_module), dict.fromkeys(names, 0.0))
        for logger in tensorboards(trainer):
            logger.experiment.add_custom_scalars(layout(probes))
            for entry in entries:
                logger.experiment._get_file_writer().add_summary(entry)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the epoch on disk."""
        flush(trainer)


def columns(trainer: Trainer, pl_module: LightningModule) -> dict[str, str | float | int]:
    """Return the ten settings by which runs are compared."""
    network: Any = pl_module.network
    data: Any = getattr(trainer, "datamodule", None)
    encoder = getattr(data, "spike_encoder", None)
    group = trainer.optimizers[0].param_groups[0] if trainer.optimizers else {}
    return {
        "network": type(network).__name__,
        "depth": _given(network, "depth", 0),
        "pool": _given(network, "pool", ""),
        "dataset": str(getattr(data, "name", type(data).__name__.removesuffix("DataModule"))),
        "encoder": type(encoder).__name__.removesuffix("Encoder"),
        "time steps": _given(encoder, "num_steps", 0),
        "optimizer": ", ".join(type(optimizer).__name__ for optimizer in trainer.optimizers),
        "lr": float(group.get("lr", 0)),
        "batch size": getattr(data, "batch_size", 0) * trainer.world_size * trainer.accumulate_grad_batches,
        "seed": _given(data, "seed", 0),
    }


def _given(owner: Any, name: str, otherwise: str | int) -> str | int:
    """Return a setting, unless the attribute of that name is something else, such as a layer."""
    value = getattr(owner, name, otherwise)
    return value if isinstance(value, str | int) else otherwise


def layout(probes: list[AdversarialAccuracy]) -> dict[str, dict[str, list[Any]]]:
    """Return TensorBoard's custom-scalars layout: first accuracies, zeros by kind and norm by kind; then the single operations.

    A chart of attacks has one space and protocol, and the clean accuracy of the images attacked.
    """
    charts: dict[str, dict[str, list[Any]]] = {ACCURACIES: {"clean, all images": ["Multiline", [f"(val|test)/{ACCURACY}$"]]}}
    for probe in probes:
        title = f"{probe.space}, BatchNorm {probe.batch_norm}"
        chart = charts[ACCURACIES].setdefault(title, ["Multiline", []])
        chart[1] += [f"{probe.name}/{CLEAN_ACCURACY}", f"{probe.name}/{ACCURACY}$"]
    for statistic, title, single in ((GRAD_ZERO, ZEROS, "zeros of each operation"), (GRAD_NORM, NORM, "norm of each operation")):
        charts[title] = {"mean of each kind": ["Multiline", [f"{mean_of(statistic)}/.*"]]}
        charts[single] = {kind: ["Multiline", [f"{statistic}/{kind}/.*"]] for kind in (INPUT, *KINDS)}
    return dict(sorted(charts.items()))


def flush(trainer: Trainer) -> None:
    """Put on disk what was logged so far."""
    for logger in tensorboards(trainer):
        logger.experiment.flush()


def tensorboards(trainer: Trainer) -> list[TensorBoardLogger]:
    """Return the loggers that write TensorBoard's events."""
    return [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]


def command(folder: str | Path) -> str:
    """Return the command that shows a folder as it can be typed here: by name where it is on the path, else beside this Python."""
    program = "tensorboard" if shutil.which("tensorboard") else shlex.quote(str(Path(sys.executable).with_name("tensorboard")))
    return f"{program} --logdir {shlex.quote(str(folder))}"

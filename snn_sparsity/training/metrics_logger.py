"""A logger that appends every value to ``metrics.csv``, one row a value."""

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from snn_sparsity.runs.metrics import append


class MetricsCSV(Logger):
    """Append rows ``epoch,step,name,value`` to ``metrics.csv`` in the run directory, each on disk at once.

    One row a value, so that a new name never rewrites what is there (Lightning's CSVLogger would, and deletes the file when a
    run goes on).

    Args:
        run_directory: Where the file is made, with the first row.
    """

    def __init__(self, run_directory: str) -> None:
        super().__init__()
        self.path = Path(run_directory) / "metrics.csv"

    @property
    def name(self) -> str:
        """``metrics``."""
        return "metrics"

    @property
    def version(self) -> str:
        """The run's number, which TensorBoard's logger has too."""
        return self.path.parent.name

    @property
    def log_dir(self) -> str:
        """The run directory."""
        return str(self.path.parent)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float | Tensor], step: int | None = None) -> None:
        """Append values; Lightning adds the epoch they belong to.

        Raises:
            InputError: If the file cannot be written.
        """
        epoch = metrics.get("epoch", "")
        # By name: Lightning's order is that in which names were first logged, which is another in a run that goes on at an epoch with
        # a probe that is not made at each.
        rows = [(epoch, step, name, repr(float(value))) for name, value in sorted(metrics.items()) if name != "epoch"]
        append(self.path, rows)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the run directory holds the whole configuration as ``config.yaml``."""

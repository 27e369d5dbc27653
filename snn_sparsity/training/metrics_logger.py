"""A logger that appends every value to ``metrics.csv``, one row a value."""

import logging
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from snn_sparsity.runs.metrics import METRICS, append, set_aside

log = logging.getLogger(__name__)


class MetricsCSV(Logger):
    """Append rows ``epoch,step,name,value`` to ``metrics.csv`` in the run directory, each on disk at once.

    One row a value, so that a new name never rewrites what is there (Lightning's CSVLogger would, and deletes the file when a
    run goes on).

    Args:
        run_directory: Where the file is made, with the first row.
        goes_on: Whether to add to the rows of an earlier run in this directory, as for a fit that goes on; otherwise its
            file is renamed ``metrics.csv.old`` before the first row, with a warning, so that no curve is of two runs.
    """

    def __init__(self, run_directory: str, goes_on: bool = False) -> None:
        super().__init__()
        self.path = Path(run_directory) / METRICS
        self._goes_on = goes_on

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
        if rows and not self._goes_on:
            self._goes_on = True
            if self.path.exists():
                log.warning(
                    "%s is an earlier run's: it is now %s; MetricsCSV(..., goes_on=True) adds to it", self.path, set_aside(self.path)
                )
        append(self.path, rows)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the run directory holds the whole configuration as ``config.yaml``."""

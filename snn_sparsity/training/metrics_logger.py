"""A logger that appends every value to ``metrics.csv``, one row a value."""

import csv
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from snn_sparsity.runs.files import unwritten, write_whole

COLUMNS = ("epoch", "step", "name", "value")
_HEADER = ",".join(COLUMNS) + "\n"


@rank_zero_only
def forget_from(path: Path, step: int) -> None:
    """Take out of a ``metrics.csv`` what was logged at ``step`` or later, and a last line that was cut short.

    A run that goes on from a checkpoint of that step logs it again.
    """
    if not path.is_file():
        return
    header, *rows = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")] or [_HEADER]
    write_whole(path, "".join([header, *(row for row in rows if int(row.split(",")[1] or 0) < step)]))


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
        """Always the same: the directory is chosen by the run."""
        return ""

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
        rows = [(epoch, step, name, repr(float(value))) for name, value in metrics.items() if name != "epoch"]
        if not rows:
            return
        try:
            new = not self.path.exists()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerows([COLUMNS, *rows] if new else rows)
        except OSError as error:
            raise unwritten(self.path, error) from error

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the run directory holds the whole configuration as ``config.yaml``."""

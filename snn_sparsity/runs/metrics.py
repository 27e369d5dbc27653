"""``metrics.csv``: one value a row, written as it is logged, read back as numbers that know their line."""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from snn_sparsity.measure.names import TRAIN_LOSS_EPOCH
from snn_sparsity.runs.files import unwritten, write_whole
from snn_sparsity.validation import InputError

COLUMNS = ["epoch", "step", "name", "value"]


@dataclass(frozen=True)
class Number:
    """A value and where it stands.

    Attributes:
        value: As it was logged.
        file: The ``metrics.csv``.
        line: Its line, from 1.
        name: The name it was logged under.
        epoch: The epoch, from 0.
    """

    value: float
    file: Path
    line: int
    name: str
    epoch: int


METRICS = "metrics.csv"
Metrics = Mapping[str, Mapping[int, Number]]
"""Numbers by name, then by epoch."""


def read_numbers(file: Path) -> Metrics:
    """Read a ``metrics.csv``; where a name was logged more than once for an epoch, the last row wins.

    Raises:
        InputError: Naming the first line that is no row.
    """
    found: dict[str, dict[int, Number]] = {}
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            reader = csv.reader(lines)
            _require_columns(next(reader, []), file)
            for row in reader:
                epoch, _, name, value = _parsed(row, file, reader.line_num)
                # What is logged outside of an epoch has no place on an axis of epochs.
                if epoch is not None:
                    found.setdefault(name, {})[epoch] = Number(value, file, reader.line_num, name, epoch)
    except (OSError, UnicodeError, csv.Error) as error:
        raise InputError(f"{file} cannot be read: {error}") from error
    return found


def _require_columns(row: Sequence[str], file: Path) -> None:
    if row != COLUMNS:
        raise InputError(f"{file} line 1: the columns must be {','.join(COLUMNS)}")


def _parsed(row: Sequence[str], file: Path, line: int) -> tuple[int | None, int, str, float]:
    """Return epoch, step, name and value; what is logged outside of an epoch has none."""
    try:
        epoch, step, name, value = row
        return int(epoch) if epoch else None, int(step or 0), name, float(value)
    except ValueError as error:
        raise InputError(f"{file} line {line} is no row {','.join(COLUMNS)}: {','.join(row)[:80]!r}") from error


def append(file: Path, rows: Iterable[Sequence[object]]) -> None:
    """Append rows epoch, step, name, value, all on disk at once; the first ones make the file, with its header.

    Raises:
        InputError: If it cannot be written.
    """
    rows = list(rows)
    if not rows:
        return
    try:
        new = not file.exists()
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", newline="") as opened:
            csv.writer(opened, lineterminator="\n").writerows([COLUMNS, *rows] if new else rows)
    except OSError as error:
        raise unwritten(file, error) from error


def set_aside(file: Path) -> str:
    """Rename a ``metrics.csv``, in place of any that was set aside before, and return its new name.

    Raises:
        InputError: If it cannot be renamed.
    """
    aside = file.with_name(f"{file.name}.old")
    try:
        file.replace(aside)
    except OSError as error:
        raise unwritten(aside, error) from error
    return aside.name


def forget_from(file: Path, step: int) -> None:
    """Take out what was logged at ``step`` or later, and a last line that was cut short: a run that goes on from there logs it again.

    Raises:
        InputError: Naming the first line that is no row; nothing is taken out then.
    """
    if not file.is_file():
        return
    try:
        lines = file.read_bytes().split(b"\n")[:-1]
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error}") from error
    kept = [",".join(COLUMNS)]
    for number, line in enumerate(lines, start=1):
        try:
            text = line.decode()
            (row,) = csv.reader([text])
        except (UnicodeError, csv.Error) as error:
            raise InputError(f"{file} line {number} cannot be read: {error}") from error
        if number == 1:
            _require_columns(row, file)
        elif _parsed(row, file, number)[1] < step:
            kept.append(text)
    write_whole(file, "\n".join([*kept, ""]))


def epochs_logged(run: Path) -> int:
    """Return how many epochs a run has behind it, by the end of its metrics; it may be running."""
    file = run / METRICS
    if not file.is_file():
        return 0
    with file.open("rb") as content:
        content.seek(max(0, file.stat().st_size - 4096))
        rows = [line.split(",") for line in content.read().decode("utf-8", "replace").split("\n")[:-1]]
    known = [(int(row[0]), row[2]) for row in rows if len(row) == len(COLUMNS) and row[0].isdecimal()]
    return known[-1][0] + (known[-1][1] == TRAIN_LOSS_EPOCH) if known else 0


@dataclass(frozen=True)
class Accuracy:
    """An accuracy in percent, over one or several runs.

    Attributes:
        numbers: One a run (a seed), as shares.
    """

    numbers: Sequence[Number]

    @property
    def mean(self) -> float:
        """Mean over runs, in percent."""
        return fmean(100 * number.value for number in self.numbers)

    @property
    def spread(self) -> float:
        """Standard deviation over runs, in points; NaN for one run."""
        return stdev(100 * number.value for number in self.numbers) if len(self.numbers) > 1 else math.nan

    def __str__(self) -> str:
        """Return ``46.99``, or ``46.99 ± 0.31`` over several runs."""
        return f"{self.mean:.2f}" + ("" if math.isnan(self.spread) else f" ± {self.spread:.2f}")


def arrow(points: float) -> str:
    """Return a change as the paper's Table 3 prints it.

    Example:
        >>> arrow(-8.61), arrow(1.98), arrow(0.001)
        ('↓8.61', '↑1.98', '=0.00')
    """
    return f"{'=' if abs(points) < 0.005 else '↑' if points > 0 else '↓'}{abs(points):.2f}"


def signed(points: float) -> str:
    """Return a difference with its sign.

    Example:
        >>> signed(-1.499), signed(2), signed(-0.001)
        ('-1.50', '+2.00', '+0.00')
    """
    rounded = round(points, 2) + 0.0
    return f"{rounded:+.2f}"

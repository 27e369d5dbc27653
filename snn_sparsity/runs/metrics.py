"""Numbers that know the line of the ``metrics.csv`` they come from."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

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
            if next(reader, None) != COLUMNS:
                raise InputError(f"{file} line 1: the columns must be {','.join(COLUMNS)}")
            for row in reader:
                # What is logged outside of an epoch has none, and no place on an axis of epochs.
                if len(row) != len(COLUMNS) or row[0]:
                    number = _parsed(row, file, reader.line_num)
                    found.setdefault(number.name, {})[number.epoch] = number
    except (OSError, UnicodeError, csv.Error) as error:
        raise InputError(f"{file} cannot be read: {error}") from error
    return found


def _parsed(row: list[str], file: Path, line: int) -> Number:
    try:
        epoch, step, name, value = row
        int(step or 0)
        return Number(float(value), file, line, name, int(epoch))
    except ValueError as error:
        raise InputError(f"{file} line {line} is no row epoch,step,name,value: {','.join(row)[:80]!r}") from error


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

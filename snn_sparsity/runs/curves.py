"""A finished run as numbers: what ``metrics.csv`` holds, by name and epoch."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from snn_sparsity.runs.metrics import Metrics, read_numbers
from snn_sparsity.validation import InputError

KINDS = ("input", "conv", "bn", "neuron", "surrogate", "pool", "linear")
"""Kinds of operations in the order in which figures show them; ``input`` is the network's own."""
OPERATION = rf"(?:({'|'.join(KINDS)})/)?(\d+)_(.+)"
"""How a logged name ends that is about one operation; some statistics leave the kind out."""


class LoggedOperation(NamedTuple):
    """One operation as its name in the log tells it.

    Attributes:
        depth: Its place among all operations of the network; 0 is the network's input.
        kind: One of KINDS, or empty where the name does not say.
        path: The module's path.
    """

    depth: int
    kind: str
    path: str


@dataclass(frozen=True)
class Run:
    """The numbers of one run.

    Attributes:
        path: The run's directory.
        name: ``<config>/seed_<n>/<k>``.
        values: By name, then by epoch; in the unit in which they were logged.
    """

    path: Path
    name: str
    values: Mapping[str, Mapping[int, float]]

    def last(self, prefix: str) -> dict[str, float]:
        """Return, for each name that begins with ``prefix``, its value at the last epoch that has one.

        Example:
            >>> Run(Path("r"), "r", {"a/x": {0: 1.0, 1: 2.0}, "b": {0: 3.0}}).last("a/")
            {'a/x': 2.0}
        """
        return {name: curve[max(curve)] for name, curve in self.values.items() if name.startswith(prefix)}

    def curve(self, name: str) -> tuple[list[int], list[float]]:
        """Return the epochs of a name, ascending, and its values; both are empty for a name that was never logged.

        Example:
            >>> Run(Path("r"), "r", {"a": {3: 1.0, 1: 2.0}}).curve("a")
            ([1, 3], [2.0, 1.0])
        """
        curve = self.values.get(name, {})
        return sorted(curve), [curve[epoch] for epoch in sorted(curve)]

    def operations(self, prefix: str) -> dict[str, LoggedOperation]:
        """Return the names that are ``prefix`` and an operation, in the order of depth, with that operation.

        Example:
            >>> Run(Path("r"), "r", {"grad_zero/conv/01_conv1": {0: 0.5}}).operations("grad_zero/")
            {'grad_zero/conv/01_conv1': LoggedOperation(depth=1, kind='conv', path='conv1')}
        """
        matches = {name: re.fullmatch(re.escape(prefix) + OPERATION, name) for name in self.values}
        found = {name: LoggedOperation(int(match[2]), match[1] or "", match[3]) for name, match in matches.items() if match}
        return dict(sorted(found.items(), key=lambda item: item[1]))

    def last_epoch(self, prefix: str) -> int:
        """Return the last epoch of the names that begin with ``prefix``, of which there must be one."""
        return max(max(curve) for name, curve in self.values.items() if name.startswith(prefix))


def read_run(path: str | Path) -> Run:
    """Read a run's directory. Where a name was logged more than once for an epoch, the last row wins.

    Args:
        path: The directory, with ``metrics.csv`` in it.

    Raises:
        InputError: If it is no run, or a line of its metrics cannot be read.
    """
    return run_of(Path(path), read_numbers(metrics_of(Path(path))))


def metrics_of(path: Path) -> Path:
    """Return where a run's numbers are.

    Raises:
        InputError: If it is no run.
    """
    file = path / "metrics.csv"
    if not os.path.isfile(file):
        raise InputError(f"{path} is no run: there is no {file}; give a folder such as runs/demo/seed_3407/0")
    return file


def run_of(path: Path, metrics: Metrics) -> Run:
    """Return the run in a directory whose metrics have been read."""
    values = {name: {epoch: number.value for epoch, number in curve.items()} for name, curve in metrics.items()}
    return Run(path, run_name(path), values)


def run_name(path: Path) -> str:
    """Return what tells a run from others: ``<config>/seed_<n>/<k>``, else the last three folders.

    Example:
        >>> run_name(Path("/home/me/runs/demo/seed_3407/0/test")), run_name(Path("/a/b/c/d"))
        ('demo/seed_3407/0/test', 'b/c/d')
    """
    parts = path.resolve().parts[1:]
    seeds = [place for place, part in enumerate(parts) if re.fullmatch(r"seed_\d+", part) and place]
    return "/".join(parts[seeds[-1] - 1 :] if seeds else parts[-3:])

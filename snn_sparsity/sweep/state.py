"""How far each run of a grid has come: what it left on disk, and the command that brings it on."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from snn_sparsity.runs.directory import is_finished, record_of, run_directory, runs_beside
from snn_sparsity.sweep.grid import GridRow

WHERE = "--trainer.default_root_dir"
"""The first argument that says where and on what a run is made; those before it are its settings."""


@dataclass(frozen=True)
class Place:
    """Where a sweep makes its runs, and on what.

    Attributes:
        root: Directory of all runs.
        device: Arguments that choose the device of each process.
        data_root: Folder or archive of the images; None is what the grid says.
        test: Whether the best checkpoint of each run is tested on all test images as well.
    """

    root: str = "runs"
    device: tuple[str, ...] = ()
    data_root: str | None = None
    test: bool = False

    def folder(self, row: GridRow) -> Path:
        """Return ``<root>/<grid>/<group>/<config>/seed_<n>``, which holds the runs of a row, numbered."""
        return self.next_run(row).parent

    def next_run(self, row: GridRow) -> Path:
        """Return the directory that a new run of the row will get."""
        return run_directory("fit", self._root(row), row.configs, row.seed, None)

    def fit(self, row: GridRow) -> list[str]:
        """Return the command that begins a row."""
        images = ["--data.root", self.data_root] if self.data_root else []
        return [*self.settings(row), WHERE, self._root(row), *images, "--trainer.enable_progress_bar", "false", *self.device]

    def settings(self, row: GridRow) -> tuple[str, ...]:
        """Return the row's settings, with ``$runs`` and ``$seed`` in them told: where one row begins with what another made."""
        here = {"runs": str(Path(self.root) / row.grid), "seed": str(row.seed)}
        return tuple(Template(word).safe_substitute(here) for word in row.settings)

    def _root(self, row: GridRow) -> str:
        return str(Path(self.root) / row.grid / row.group)


def next_command(row: GridRow, place: Place) -> list[str] | None:
    """Return what has to be run next for a row; None if it is finished."""
    runs = runs_of(row, place)
    finished = next((run for run in runs if is_finished(run)), None)
    if finished is not None:
        return tested(finished) if place.test and not is_finished(finished / "test") else None
    return [*place.fit(row), "--resume"] if runs else place.fit(row)


def tested(run: Path) -> list[str]:
    """Return the command that tests the best checkpoint of a run, with the run's own probes, on all test images."""
    return ["test", "--config", str(run / "config.yaml"), "--ckpt_path", str(run / "best.ckpt")]


def clear(row: GridRow, place: Place) -> list[Path]:
    """Remove what a new command would trip over: a test that was broken off. Nobody else may work on the row meanwhile."""
    lost = [run / "test" for run in runs_of(row, place) if (run / "test").is_dir() and not is_finished(run / "test")]
    for folder in lost:
        shutil.rmtree(folder)
    return lost


def runs_of(row: GridRow, place: Place) -> list[Path]:
    """Return the runs of a row that were begun with its settings, the newest first."""
    begun = []
    for run in runs_beside(place.next_run(row)):
        record = record_of(run)
        arguments: Sequence[str] = (record.get("earlier") or [record])[0].get("arguments", ())
        if WHERE in arguments and tuple(arguments[: arguments.index(WHERE)]) == place.settings(row):
            begun.append(run)
    return begun

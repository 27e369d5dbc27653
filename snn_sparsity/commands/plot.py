"""``snn-sparsity plot``: draw the figures of one run, or of two beside each other."""

import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib import style
from matplotlib.figure import Figure

from snn_sparsity.figures.catalogue import FIGURES, common, figure_of
from snn_sparsity.figures.drawing import STYLE
from snn_sparsity.runs.curves import read_run
from snn_sparsity.validation import InputError, require_choice


def run(given: Namespace) -> int:
    """Run the command."""
    require_choice("--figure", given.figure, (*FIGURES, "all"))
    runs = [read_run(path) for path in (given.run, given.other) if path is not None]
    names = common(runs) if given.figure == "all" else [given.figure]
    for path in save({name: figure_of(name, runs) for name in names}, given.out or given.run / "figures"):
        print(path)
    return 0


def save(figures: Mapping[str, Figure], folder: Path) -> Sequence[Path]:
    """Write each figure to ``<folder>/<name>.png``; the same figure gives the same bytes.

    Raises:
        InputError: If the folder cannot be written to.
    """
    paths = []
    for name, figure in figures.items():
        path = folder / f"{name}.png"
        unfinished = folder / f".{name}.{os.getpid()}.png"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with style.context(STYLE, after_reset=True):
                figure.savefig(unfinished, metadata={"Software": None})
            unfinished.replace(path)
        except OSError as error:
            raise InputError(f"--out {folder}: {path.name} cannot be written: {error.strerror or error}") from error
        finally:
            if folder.is_dir():
                unfinished.unlink(missing_ok=True)
        paths.append(path)
    return paths

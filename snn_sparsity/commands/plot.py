"""``snn-sparsity plot``: draw the figures of one run, or of two beside each other."""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib import style
from matplotlib.figure import Figure

from snn_sparsity.figures.catalogue import FIGURES, common, figure_of
from snn_sparsity.figures.drawing import STYLE
from snn_sparsity.runs.curves import read_run
from snn_sparsity.runs.files import whole_file
from snn_sparsity.validation import require_choice


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
    for name, figure in figures.items():
        with style.context(STYLE, after_reset=True), whole_file(folder / f"{name}.png") as file:
            figure.savefig(file, format="png", metadata={"Software": None})
    return [folder / f"{name}.png" for name in figures]

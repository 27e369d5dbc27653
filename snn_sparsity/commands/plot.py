"""``snn-sparsity plot``: draw the figures of one run, or of two beside each other."""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

from snn_sparsity.figures.catalogue import FIGURES, common, figure_of
from snn_sparsity.figures.drawing import png
from snn_sparsity.runs.curves import read_run
from snn_sparsity.runs.files import whole_file
from snn_sparsity.validation import require_choice


def run(given: Namespace) -> int:
    """Run the command."""
    require_choice("--figure", given.figure, (*FIGURES, "all"))
    runs = [read_run(path) for path in (given.run, given.other) if path is not None]
    names = common(runs) if given.figure == "all" else [given.figure]
    for path in save({name: png(figure_of(name, runs)) for name in names}, given.out or given.run / "figures"):
        print(path)
    return 0


def save(figures: Mapping[str, bytes], folder: Path) -> Sequence[Path]:
    """Write each figure, a PNG file's content, to ``<folder>/<name>.png``.

    Raises:
        InputError: If the folder cannot be written to.
    """
    for name, content in figures.items():
        with whole_file(folder / f"{name}.png") as file:
            file.write(content)
    return [folder / f"{name}.png" for name in figures]

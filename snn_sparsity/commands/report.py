"""``snn-sparsity report``: finished runs beside the paper, as a page, Markdown and CSV."""

import re
from argparse import Namespace
from pathlib import Path

from snn_sparsity.commands.plot import save
from snn_sparsity.reproduction.causal.trained import MEASURED, networks_of
from snn_sparsity.reproduction.inserts import filled
from snn_sparsity.reproduction.report import Report
from snn_sparsity.runs.files import write_whole
from snn_sparsity.runs.records import find_records
from snn_sparsity.validation import InputError


def run(given: Namespace) -> int:
    """Run the command."""
    experiments = [file for folder in given.runs for file in sorted(folder.rglob(MEASURED))]
    report = Report(find_records(given.runs), given.out, {file: networks_of(file) for file in experiments})
    into = {path: filled(_read(path), report.parts, path, given.out / "report.md") for path in given.into}
    contents = {"report.html": report.html(), "report.md": report.markdown(), "report.csv": report.csv()}
    before = _figures_named_in(given.out / "report.md")
    drawn = save(report.figures(), given.out / "figures")
    for name, content in contents.items():
        write_whole(given.out / name, content)
        print(given.out / name)
    for figure in before - set(drawn):
        figure.unlink(missing_ok=True)
    for path, content in into.items():
        write_whole(path, content)
        print(path)
    return 0


def _figures_named_in(page: Path) -> set[Path]:
    """Return the figures of an earlier report, which this one may no longer have."""
    names = re.findall(r"]\((figures/[^/)]+\.png)\)", _read(page)) if page.is_file() else []
    return {page.parent / name for name in names}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error

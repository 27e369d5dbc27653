"""``snn-sparsity report``: finished runs beside the paper, as a page, Markdown and CSV."""

from argparse import Namespace

from snn_sparsity.commands.plot import save
from snn_sparsity.reproduction.report import Report
from snn_sparsity.runs.records import find_records
from snn_sparsity.validation import InputError


def run(given: Namespace) -> int:
    """Run the command."""
    report = Report(find_records(given.runs), given.out)
    contents = {"report.html": report.html(), "report.md": report.markdown(), "report.csv": report.csv()}
    save(report.figures(), given.out / "figures")
    for name, content in contents.items():
        try:
            # Figures would have made the folder, but a run without attacks has none.
            given.out.mkdir(parents=True, exist_ok=True)
            (given.out / name).write_text(content, encoding="utf-8")
        except OSError as error:
            raise InputError(f"--out {given.out}: {name} cannot be written: {error.strerror or error}") from error
        print(given.out / name)
    return 0

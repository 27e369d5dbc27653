"""``snn-sparsity report``: finished runs beside the paper, as a page, Markdown and CSV."""

from argparse import Namespace

from snn_sparsity.commands.plot import save
from snn_sparsity.reproduction.report import Report
from snn_sparsity.runs.files import write_whole
from snn_sparsity.runs.records import find_records


def run(given: Namespace) -> int:
    """Run the command."""
    report = Report(find_records(given.runs), given.out)
    contents = {"report.html": report.html(), "report.md": report.markdown(), "report.csv": report.csv()}
    save(report.figures(), given.out / "figures")
    for name, content in contents.items():
        write_whole(given.out / name, content)
        print(given.out / name)
    return 0

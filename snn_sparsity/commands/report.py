"""``snn-sparsity report``: finished runs beside the paper, as a page, Markdown and CSV."""

from pathlib import Path

from snn_sparsity.commands.one_line import OneLineParser
from snn_sparsity.commands.plot import save
from snn_sparsity.reproduction.report import Report
from snn_sparsity.runs.files import write_whole
from snn_sparsity.runs.records import find_records


def run(arguments: list[str]) -> int:
    """Run the command; ``arguments[0]`` is its name."""
    given = _parser().parse_args(arguments[1:])
    report = Report(find_records(given.runs), given.out)
    contents = {"report.html": report.html(), "report.md": report.markdown(), "report.csv": report.csv()}
    save(report.figures(), given.out / "figures")
    for name, content in contents.items():
        write_whole(given.out / name, content)
        print(given.out / name)
    return 0


def _parser() -> OneLineParser:
    parser = OneLineParser(
        prog="snn-sparsity report", description="Put finished runs beside the paper: tables, figures, and its claim, tested."
    )
    parser.add_argument("runs", metavar="RUNS", type=Path, nargs="+", help="runs, or folders with runs somewhere below them")
    parser.add_argument(
        "--out", type=Path, default=Path("report"), metavar="DIR", help="folder for report.html, .md, .csv and figures/ (default: report)"
    )
    return parser

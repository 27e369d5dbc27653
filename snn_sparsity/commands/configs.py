"""``snn-sparsity configs``: list the shipped configurations, or copy one out."""

import argparse
import shutil
from pathlib import Path

from snn_sparsity import shipped
from snn_sparsity.checks import InputError


def run(arguments: list[str]) -> int:
    """Run the command; ``arguments[0]`` is its name."""
    parser = argparse.ArgumentParser(prog="snn-sparsity configs", description="List the shipped configurations, or copy one out.")
    parser.add_argument("name", nargs="?", help="the configuration to copy, by name or stem")
    parser.add_argument("target", nargs="?", default=".", help="file or folder to copy it to (default: here)")
    given = parser.parse_args(arguments[1:])
    if given.name is None:
        for name in shipped.names():
            print(f"{name:<24} {_first_comment(shipped.DIRECTORY / name)}")
        return 0
    source = Path(shipped.resolve(given.name))
    target = Path(given.target) / source.name if Path(given.target).is_dir() else Path(given.target)
    if target.exists():
        raise InputError(f"{target} is there already: give another target")
    if not target.parent.is_dir():
        raise InputError(f"{target.parent} is no folder")
    shutil.copyfile(source, target)
    print(target)
    return 0


def _first_comment(path: Path) -> str:
    return path.read_text().splitlines()[0].lstrip("# ")

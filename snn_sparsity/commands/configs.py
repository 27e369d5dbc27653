"""``snn-sparsity configs``: list the shipped configurations, or copy one out."""

import os
import shutil
from argparse import Namespace
from pathlib import Path

from snn_sparsity.configs import shipped
from snn_sparsity.validation import InputError


def run(given: Namespace) -> int:
    """Run the command."""
    if given.name is None:
        for name in shipped.names():
            comment = (shipped.DIRECTORY / name).read_text().splitlines()[0]
            print(f"{name:<24} {comment.lstrip('# ')}")
        return 0
    source = Path(shipped.resolve(given.name))
    target = Path(given.target) / source.name if os.path.isdir(given.target) else Path(given.target)
    if os.path.lexists(target):
        raise InputError(f"{target} is there already: give another target")
    if not os.path.isdir(target.parent):
        raise InputError(f"{target.parent} is no folder")
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        raise InputError(f"{target} cannot be written: {error.strerror}") from error
    print(target)
    return 0

"""The configurations that come with the package."""

import os
from importlib.resources import files
from pathlib import Path

from snn_sparsity.validation import InputError, did_you_mean

DIRECTORY = Path(str(files("snn_sparsity.configs")))
PAPER = DIRECTORY / "paper.yaml"
"""What every run starts from: the paper's setting."""


def names() -> list[str]:
    """Return the names of the shipped configurations, sorted."""
    return sorted(path.name for path in DIRECTORY.glob("*.yaml"))


def resolve(config: str) -> str:
    """Return the path of a configuration given by path, by shipped name, or by its stem.

    Raises:
        InputError: If there is none, listing the shipped ones.

    Example:
        >>> resolve("sew18_maxpool").endswith("sew18_maxpool.yaml")
        True
    """
    # Unlike Path.is_file, it is no error to ask it about a name too long to exist.
    for candidate in (config, str(DIRECTORY / config), str(DIRECTORY / f"{config}.yaml")):
        if os.path.isfile(candidate):
            return candidate
    known = ", ".join(names())
    meant = did_you_mean(config, [*names(), *(Path(name).stem for name in names())])
    raise InputError(f"--config {config} is no file and no shipped configuration{meant}: choose one of {known}")

"""Grids by name or file: groups of configurations, each with the settings they share, times seeds."""

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from snn_sparsity.configs import shipped
from snn_sparsity.validation import InputError, did_you_mean

DIRECTORY = Path(str(files("snn_sparsity.sweep"))) / "grids"
GROUP_KEYS = {"configs", "arguments"}
MAX_EPOCHS = "--trainer.max_epochs"
EPOCHS = 100
"""Of a run that says nothing of them, and of the paper's."""


@dataclass(frozen=True)
class GridRow:
    """One run of a grid.

    Attributes:
        grid: The grid's name.
        group: The group's name, such as ``cifar10``.
        config: Configurations, joined by ``+`` as in the name of a run.
        seed: The run's seed.
        settings: What makes it this run and no other: everything on its command line but where and on what it runs.
    """

    grid: str
    group: str
    config: str
    seed: int
    settings: tuple[str, ...]

    @property
    def name(self) -> str:
        """``<group>/<config>``, with the stems of configurations that are files."""
        return f"{self.group}/{'+'.join(Path(config).stem for config in self.configs)}"

    @property
    def configs(self) -> list[str]:
        """The configurations, by path, name or stem."""
        return self.config.split("+")


def grid_names() -> list[str]:
    """Return the names of the grids that come with the package, sorted."""
    return sorted(path.stem for path in DIRECTORY.glob("*.yaml"))


def read_grid(grid: str, seeds: Sequence[int], more: Sequence[str] = ()) -> list[GridRow]:
    """Return the rows of a grid, seed by seed, so that a broken sweep has whole grids first.

    Args:
        grid: Its name, or a file that maps groups to ``configs`` (a list) and ``arguments`` (of ``fit``, in one string, where
            ``$runs`` is the folder of the grid's runs and ``$seed`` the row's seed).
        seeds: One run each.
        more: Further arguments of every run, which win over the grid's.

    Raises:
        InputError: For an unknown grid, one that cannot be read or is no such mapping, or an unknown configuration in it.

    Example:
        >>> rows = read_grid("paper", [3407])
        >>> len(rows), rows[0].name, " ".join(rows[0].settings)
        (15, 'cifar10/sew18_maxpool', 'fit --config sew18_maxpool --data.name cifar10 --seed_everything 3407')
    """
    path = Path(grid) if os.path.isfile(grid) else DIRECTORY / f"{grid}.yaml"
    if not os.path.isfile(path):
        raise InputError(f"--grid {grid} is no file and no grid{did_you_mean(grid, grid_names())}: choose one of {', '.join(grid_names())}")
    groups = {name: _group(f"--grid {path}: the group {name!r}", name, given) for name, given in _mapping(path).items()}
    rows = []
    for seed in seeds:
        for group, (configs, arguments) in groups.items():
            for config in configs:
                named = [word for name in config.split("+") for word in ("--config", name)]
                settings = ("fit", *named, *arguments, *more, "--seed_everything", str(seed))
                rows.append(GridRow(path.stem, group, config, seed, settings))
    return rows


def _group(what: str, name: Any, given: Any) -> tuple[list[str], list[str]]:
    """Return the configurations of a group and the words of its arguments."""
    if not isinstance(name, str) or not name or not name.isprintable():
        raise InputError(f"{what} must have a name that a folder can have: put it in quotes")
    configs = given.get("configs") if isinstance(given, dict) and not set(given) - GROUP_KEYS else None
    if not isinstance(configs, list) or not configs or not all(isinstance(config, str) for config in configs):
        raise InputError(f"{what} must have a list of 'configs', may have 'arguments', and nothing else")
    for config in configs:
        for stem in config.split("+"):
            shipped.resolve(stem)
    arguments = given.get("arguments") or ""
    if not isinstance(arguments, str) or "\0" in arguments:
        raise InputError(f"{what} must have its 'arguments' in one text, such as '--data.name cifar10 --model.lr 0.1'")
    try:
        return configs, shlex.split(arguments)
    except ValueError as error:
        raise InputError(f"{what} has 'arguments' that are no command line: {str(error).lower()}") from error


def chosen(rows: Sequence[GridRow], pattern: str | None) -> list[GridRow]:
    """Return the rows whose configuration, or ``<group>/<config>``, matches a shell pattern.

    Raises:
        InputError: If none does.

    Example:
        >>> [row.name for row in chosen(read_grid("paper", [1]), "cifar100/spiking*")]
        ['cifar100/spiking18_maxpool', 'cifar100/spiking34_maxpool', 'cifar100/spiking50_maxpool']
    """
    found = [row for row in rows if pattern is None or fnmatchcase(row.config, pattern) or fnmatchcase(row.name, pattern)]
    if not found:
        raise InputError(f"--only {pattern} matches no row: the grid has {', '.join(dict.fromkeys(row.name for row in rows))}")
    return found


def part(rows: Sequence[GridRow], share: str) -> list[GridRow]:
    """Return part i of n, ``i/n`` with i from 0: every n-th row, for n machines that share a grid.

    Raises:
        InputError: If it is no such share.

    Example:
        >>> [row.name for row in part(read_grid("paper", [1]), "1/8")]
        ['cifar10/sew34_maxpool', 'cifar100/sew18_avgpool']
    """
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", share)
    if match is None or int(match[1]) >= int(match[2]):
        raise InputError(f"--part {share} is not allowed: give i/n with i from 0 to n-1, such as 0/15")
    return list(rows[int(match[1]) :: int(match[2])])


def epochs_asked(row: GridRow) -> int:
    """Return how many epochs a row trains, as its configurations and arguments say; 100 where they say no number, or no limit (-1).

    What is no number is for ``fit`` to refuse.
    """
    trainers = [_mapping(Path(shipped.resolve(config))).get("trainer") for config in row.configs]
    said = [trainer["max_epochs"] for trainer in trainers if isinstance(trainer, dict) and "max_epochs" in trainer]
    words = [part for word in row.settings for part in word.split("=", 1)]
    said += [value for name, value in pairwise(words) if name == MAX_EPOCHS]
    last = str(said[-1]) if said else ""
    return int(last) if re.fullmatch(r"\d{1,9}", last) else EPOCHS


def _mapping(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path} is no mapping of names")
    return content

"""Grids by name or file: groups of configurations, each with the settings they share, times seeds."""

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from snn_sparsity.configs import shipped
from snn_sparsity.validation import InputError, did_you_mean

DIRECTORY = Path(str(files("snn_sparsity.sweep"))) / "grids"
GROUP_KEYS = {"configs", "arguments"}


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
        InputError: For an unknown grid, one that cannot be read, or an unknown configuration in it.

    Example:
        >>> rows = read_grid("paper", [3407])
        >>> len(rows), rows[0].name, " ".join(rows[0].settings)
        (15, 'cifar10/sew18_maxpool', 'fit --config sew18_maxpool --data.name cifar10 --seed_everything 3407')
    """
    path = Path(grid) if os.path.isfile(grid) else DIRECTORY / f"{grid}.yaml"
    if not os.path.isfile(path):
        raise InputError(f"--grid {grid} is no file and no grid{did_you_mean(grid, grid_names())}: choose one of {', '.join(grid_names())}")
    groups = _mapping(path)
    for name, given in groups.items():
        if not isinstance(given, dict) or not isinstance(given.get("configs"), list) or set(given) - GROUP_KEYS:
            raise InputError(f"--grid {path}: the group {name!r} must have a list of 'configs', may have 'arguments', and nothing else")
        for config in given["configs"]:
            for stem in str(config).split("+"):
                shipped.resolve(stem)
    rows = []
    for seed in seeds:
        for group, given in groups.items():
            for config in given["configs"]:
                configs = [word for name in config.split("+") for word in ("--config", name)]
                arguments = shlex.split(str(given.get("arguments", "")))
                settings = ("fit", *configs, *arguments, *more, "--seed_everything", str(seed))
                rows.append(GridRow(path.stem, group, config, seed, settings))
    return rows


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
    match = re.fullmatch(r"(\d+)/(\d+)", share)
    if match is None or int(match[1]) >= int(match[2]):
        raise InputError(f"--part {share} is not allowed: give i/n with i from 0 to n-1, such as 0/15")
    return list(rows[int(match[1]) :: int(match[2])])


def epochs_asked(row: GridRow) -> int:
    """Return how many epochs a row trains, as its configurations and arguments say; 100 where they do not."""
    words = [part for word in row.settings for part in word.split("=", 1)]
    if "--trainer.max_epochs" in words:
        last = len(words) - 1 - words[::-1].index("--trainer.max_epochs")
        return int(words[last + 1])
    said = [(_mapping(Path(shipped.resolve(config))).get("trainer") or {}).get("max_epochs") for config in row.configs]
    return int(next((number for number in reversed(said) if number), 100))


def _mapping(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path} is no mapping of names")
    return content

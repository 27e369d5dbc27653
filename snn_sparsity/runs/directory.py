"""Where a run leaves what it makes, ``runs/<config>/seed_<n>/<k>``, and how it ended."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from snn_sparsity.validation import InputError

CONFIG, RECORD, LOCK = "config.yaml", "run.json", "run.lock"


class LiveRunError(InputError):
    """Another process is at work on the run."""


def run_directory(command: str, root: str, configs: Sequence[str], seed: int, checkpoint: str | None) -> Path:
    """Return the directory of a new run; it is not made.

    A fit gets the next free ``<root>/<config>/seed_<n>/<k>``. Validating or testing a checkpoint goes to a directory beside it,
    named after the command, so that its numbers stay with the run they are about.

    Args:
        command: fit, validate, test or predict.
        root: Directory of all runs.
        configs: Configurations given, by path; their stems, joined by ``+``, name the run.
        seed: Seed of the run.
        checkpoint: Checkpoint given, or None.

    Raises:
        InputError: If no such directory can be made.

    Example:
        >>> run_directory("fit", "no_such_folder", ["configs/demo.yaml"], 3407, None).as_posix()
        'no_such_folder/demo/seed_3407/0'
    """
    if command != "fit" and checkpoint is not None:
        return Path(checkpoint).parent / command
    names = []
    for path in map(Path, configs):
        # A run's own config.yaml is named after that run.
        above = path.resolve().parents
        names.append(above[2].name if path.stem == "config" and above[1].name.startswith("seed_") else path.stem)
    parent = Path(root) / ("+".join(names) or "paper") / f"seed_{seed}"
    require_place(parent)
    newest = next(iter(runs_beside(parent / "0")), None)
    return parent / str(int(newest.name) + 1 if newest else 0)


def runs_beside(run: Path) -> list[Path]:
    """Return the runs with the same configuration and seed as the run of this directory, which may not be there yet, the newest first."""
    numbered = ((int(path.name), path) for path in run.parent.glob("*") if path.name.isdigit())
    return [path for _, path in sorted(numbered, reverse=True)]


def require_place(directory: Path) -> None:
    """Raise InputError unless the directory is there, or can be made, and be written to."""
    try:
        above = next(path for path in (directory, *directory.parents) if path.is_symlink() or path.exists())
    except OSError as error:
        raise InputError(f"{directory} cannot be made: {error.strerror}") from error
    if not above.is_dir():
        raise InputError(f"{directory} cannot be made: {above} is no folder")
    if not os.access(above, os.W_OK):
        raise InputError(f"{directory} cannot be written to: give another --trainer.default_root_dir")


def live(run: Path) -> LiveRunError:
    """Return the error to raise for a run that another process holds."""
    return LiveRunError(f"{run} is being trained by another process: wait for it, or stop it")


def own_run(configs: Sequence[str]) -> Path | None:
    """Return the run whose own ``config.yaml`` is the one configuration given; None for any others."""
    paths = [Path(config) for config in configs]
    return paths[0].parent if len(paths) == 1 and paths[0].name == CONFIG and (paths[0].parent / RECORD).is_file() else None


def record_of(run: Path) -> dict[str, Any]:
    """Return what ``run.json`` says of a run; nothing where there is none that can be read."""
    try:
        content = json.loads((run / RECORD).read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def is_finished(run: Path) -> bool:
    """Tell whether a run, or a test, ended by itself; its last checkpoint was written before it said so."""
    return record_of(run).get("status") == "finished"

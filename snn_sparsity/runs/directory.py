"""Where a run leaves what it makes, ``runs/<config>/seed_<n>/<k>``, and how it ended."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from snn_sparsity.runs.files import hold
from snn_sparsity.runs.metrics import METRICS
from snn_sparsity.validation import InputError

CONFIG, RECORD, LOCK = "config.yaml", "run.json", "run.lock"
BEST, LAST, PREVIOUS = "best.ckpt", "last.ckpt", "previous.ckpt"


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
    numbered = ((int(path.name), path) for path in run.parent.glob("*") if path.name.isdecimal())
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


def take_hold(run: Path) -> int:
    """Return a descriptor that holds a run for as long as it is open.

    Raises:
        LiveRunError: If another process holds it.
        InputError: If its ``run.lock`` cannot be made.
    """
    descriptor = hold(run / LOCK)
    if descriptor is None:
        raise LiveRunError(f"{run} is being made by another process: wait for it, or stop it")
    return descriptor


def own_run(configs: Sequence[str]) -> Path | None:
    """Return the run whose own ``config.yaml`` is the one configuration given; None for any others.

    Raises:
        InputError: If it is a run's, but nothing is left there to go on with.
    """
    if len(configs) != 1 or Path(configs[0]).name != CONFIG:
        return None
    run = Path(configs[0]).parent
    # One that was killed early has no record yet.
    if any((run / name).exists() for name in (RECORD, LOCK, METRICS, LAST, PREVIOUS)):
        return run
    if (run / BEST).exists() or run.resolve().parent.name.startswith("seed_"):
        raise InputError(f"--resume: {run} has no {RECORD}, so there is no run to go on with; leave --resume out to begin another")
    return None


def read_record(run: Path) -> dict[str, Any]:
    """Return what ``run.json`` says of a run; nothing where there is none.

    Raises:
        InputError: If it is not as a run writes it.
    """
    file = run / RECORD
    try:
        content = json.loads(file.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file} cannot be read: {error}") from error
    earlier = content.get("earlier", []) if isinstance(content, dict) else None
    if not isinstance(earlier, list) or not all(isinstance(part, dict) for part in earlier):
        raise InputError(f"{file} is no record of a run: it must be a mapping, and what it has as 'earlier' a list of such")
    return content


def record_of(run: Path) -> dict[str, Any]:
    """Return what ``run.json`` says of a run; nothing where there is none that can be read."""
    try:
        return read_record(run)
    except InputError:
        return {}


def is_finished(run: Path) -> bool:
    """Tell whether a run, or a test, ended by itself; its last checkpoint was written before it said so."""
    return record_of(run).get("status") == "finished"

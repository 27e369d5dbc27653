"""Where a run leaves what it makes: ``runs/<config>/seed_<n>/<k>``."""

import os
from collections.abc import Sequence
from pathlib import Path

from snn_sparsity.checks import InputError


def run_directory(command: str, root: str, configs: Sequence[str], seed: int, checkpoint: str | None) -> Path:
    """Return the directory of a new run; it is not made.

    A fit gets the next free ``<root>/<config>/seed_<n>/<k>``, unless it is :func:`going_on`. Validating or testing a checkpoint
    goes to a directory beside it, named after the command, so that its numbers stay with the run they are about.

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
    parent = Path(root) / ("+".join(_name(Path(config)) for config in configs) or "paper") / f"seed_{seed}"
    require_place(parent)
    taken = [int(path.name) for path in parent.glob("*") if path.name.isdigit()]
    return parent / str(max(taken, default=-1) + 1)


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


def going_on(arguments: Sequence[str]) -> Path | None:
    """Return the run that ``fit --config RUN/config.yaml --ckpt_path RUN/last.ckpt`` goes on with; None for any other arguments.

    With a setting changed it would be another run, and gets a directory of its own.

    Example:
        >>> going_on(["fit", "--config", "runs/demo/seed_1/0/config.yaml", "--ckpt_path", "runs/demo/seed_1/0/last.ckpt"]).as_posix()
        'runs/demo/seed_1/0'
    """
    command, *options = arguments
    given = dict(zip(options[::2], options[1::2], strict=False))
    if command != "fit" or set(given) != {"--config", "--ckpt_path"} or len(options) != 4:
        return None
    run = Path(given["--ckpt_path"]).parent
    return run if Path(given["--config"]).resolve() == (run / "config.yaml").resolve() else None


def _name(config: Path) -> str:
    """Return the stem of a configuration; a run's own ``config.yaml`` is named after that run."""
    parents = config.resolve().parents
    if config.stem == "config" and parents[1].name.startswith("seed_"):
        return parents[2].name
    return config.stem

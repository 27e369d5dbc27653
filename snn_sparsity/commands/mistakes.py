"""What can be told of a command line before the imports that take seconds: files that are missing, names that nobody knows."""

import os
from argparse import Namespace
from pathlib import Path

from snn_sparsity.validation import InputError

NEEDS_A_CHECKPOINT = ("validate", "test", "predict", "audit")


def check(given: Namespace) -> None:
    """Raise InputError for the first mistake."""
    if not given.takes_more or given.help_all:
        return
    checkpoint = given.ckpt_path
    if (
        checkpoint is None
        and given.command in NEEDS_A_CHECKPOINT
        and not (getattr(given, "compare", None) or getattr(given, "weights", None))
    ):
        raise InputError(f"{given.command} needs --ckpt_path: the checkpoint of a network{_newest(given.config)}")
    # Unlike a Path, it takes any name: too long, or with a zero in it.
    if checkpoint is not None and not os.path.isfile(checkpoint):
        raise InputError(f"--ckpt_path {checkpoint} is no file")


def _newest(configs: list[str]) -> str:
    """Return where the newest best checkpoint of these configurations is, as advice, or nothing."""
    name = "+".join(Path(config).stem for config in configs) or "*"
    found = sorted(Path("runs").glob(f"{name}/seed_*/*/best.ckpt"), key=os.path.getmtime)
    return f", such as {found[-1]}" if found else ""

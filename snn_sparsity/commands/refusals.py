"""What Lightning refuses is a mistake in what was given, and a command that is refused leaves no run behind."""

import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from traceback import walk_tb
from typing import Any

import torch
from jsonargparse import Namespace
from lightning import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from snn_sparsity.runs.directory import LiveRunError
from snn_sparsity.validation import InputError, require_cores, require_number

SCHEDULE: Mapping[str, Mapping[str, Any]] = {
    "accumulate_grad_batches": {"at_least": 1, "whole": True},
    "check_val_every_n_epoch": {"at_least": 1, "whole": True},
    "gradient_clip_val": {"at_least": 0},
    "log_every_n_steps": {"at_least": 0, "whole": True},
    "num_sanity_val_steps": {"at_least": -1, "whole": True},
    "val_check_interval": {"above": 0},
}
"""Ranges of the trainer's numbers that Lightning takes as they come, and divides by later."""

REFUSED: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "barebones": (bool, "it leaves out the record, numbers and checkpoints that a run is; switch off what you need not, one by one"),
    "model_registry": (bool, "it uploads to a server, and nothing here reaches the network"),
    "precision": (lambda value: str(value).startswith("64"), "spikes and probes are float32; give 32-true"),
    "use_distributed_sampler": (lambda value: not value, "the datamodule itself deals images to processes, each image once"),
}
"""Values of the trainer's options that would take from a run what it promises, and why; docs/trainer.md has a line for every option."""


def require_schedule(trainer: Namespace) -> None:
    """Raise InputError for a number of the trainer that is out of its range, or a precision that nothing here has."""
    for name, limits in SCHEDULE.items():
        if isinstance(value := trainer.get(name), int | float):
            require_number(f"trainer.{name}", value, **limits)
    for name, (refused, reason) in REFUSED.items():
        if (value := trainer.get(name)) is not None and refused(value):
            raise InputError(f"trainer.{name}={str(value).lower() if isinstance(value, bool) else value} is not allowed: {reason}")


def require_devices(trainer: Namespace) -> None:
    """Raise InputError for more processes than there are cores, where there is no GPU for each: Lightning counts GPUs, and no cores."""
    devices = trainer.get("devices")
    if isinstance(devices, str):
        with suppress(ValueError):
            devices = int(devices)
    if isinstance(devices, int) and (trainer.get("accelerator") == "cpu" or not torch.cuda.is_available()):
        require_cores("trainer.devices", devices)


@contextmanager
def in_one_line(*more: type[Exception]) -> Iterator[None]:
    """Turn what Lightning itself, or an optimiser, raises into InputError: an option that it does not take, or not with another.

    Args:
        more: Further errors that are meant so. A TypeError is, while things are made; in a run it is that of a callback.
    """
    meant: tuple[type[Exception], ...] = (MisconfigurationException, ValueError, RuntimeError, ModuleNotFoundError, *more)
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        *_, (innermost, _) = walk_tb(error.__traceback__)
        by = str(innermost.f_globals.get("__name__"))
        if by.startswith("torch.optim."):
            raise InputError(f"{by.rsplit('.', 1)[-1]}: {error}") from error
        if by.startswith("lightning.") and isinstance(error, meant):
            raise InputError(str(error)) from error
        raise


@contextmanager
def disk_errors_told_once() -> Iterator[None]:
    """Let threads that cannot write say nothing: what TensorBoard's thread cannot write it raises in the main thread, too."""
    before = threading.excepthook
    threading.excepthook = lambda failure: None if isinstance(failure.exc_value, OSError) else before(failure)
    try:
        yield
    finally:
        threading.excepthook = before


@contextmanager
def leaving_nothing(trainer: Trainer, run: Path) -> Iterator[None]:
    """Remove the directory of a new run that was refused before it had anything to keep, and the folders made for it."""
    made = [folder for folder in (run, *run.parents) if not folder.exists()]
    try:
        yield
    except LiveRunError:
        # What is there is another's.
        raise
    except InputError:
        if made and trainer.is_global_zero and trainer.current_epoch == 0 and not any(run.glob("*.ckpt")):
            shutil.rmtree(run, ignore_errors=True)
            for folder in made[1:]:
                with suppress(OSError):
                    folder.rmdir()
        raise

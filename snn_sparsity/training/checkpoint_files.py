"""Checkpoint files: written whole, read without running code in them, and which of a run's to go on from."""

import io
import logging
import os
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from snn_sparsity.runs.directory import LAST, PREVIOUS
from snn_sparsity.runs.files import whole_file
from snn_sparsity.validation import InputError

log = logging.getLogger(__name__)


def read_checkpoint(path: str, option: str = "--ckpt_path") -> dict[str, Any]:
    """Return a checkpoint, read without running any code in it; messages call it by the option that named it.

    Raises:
        InputError: If there is none, or it is not one of ours.
    """
    # Unlike a Path, it takes any name: too long, or with a zero in it.
    if not os.path.isfile(path):
        raise InputError(f"{option} {path} is no file")
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever the damage makes it raise
        raise InputError(f"{option} {path} is no readable checkpoint ({type(error).__name__})") from error
    state = checkpoint.get("state_dict") if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise InputError(f"{option} {path} holds no state_dict: it is no checkpoint of this program")
    return checkpoint


def last_whole(run: Path) -> Path | None:
    """Return the newest checkpoint of a run that can be read, None if there is none; one that cannot is named in the log."""
    for path in (run / LAST, run / PREVIOUS):
        if not path.is_file():
            continue
        try:
            with ZipFile(path) as parts:
                # torch.load looks at no checksum.
                whole = parts.testzip() is None
            read_checkpoint(str(path))
        except (BadZipFile, InputError):
            whole = False
        if whole:
            return path
        log.warning("%s is damaged: it is left out, and the one before it is used.", path)
    return None


class WholeCheckpointIO(TorchCheckpointIO):
    """Write checkpoints that are whole or not there, and load tensors and plain values only.

    Lightning writes to the folder for temporary files and moves the file from there: from another file system that is a copy,
    which a killed process leaves half done.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint.

        Raises:
            InputError: If it cannot be written.
        """
        # By way of memory, because torch.save hides why it could not write to a file.
        content = io.BytesIO()
        torch.save(checkpoint, content)
        with whole_file(Path(path)) as file:
            file.write(content.getbuffer())

    def load_checkpoint(self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        """Return a checkpoint; whatever is asked for, no code in it is run."""
        return super().load_checkpoint(path, map_location, weights_only=True)

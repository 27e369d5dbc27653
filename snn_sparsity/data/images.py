"""A labelled image set as one uint8 tensor, and its cache on disk."""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from snn_sparsity.runs.files import whole_file
from snn_sparsity.validation import InputError


class ImageSet(NamedTuple):
    """Images and their classes.

    Attributes:
        images: [N,3,32,32] uint8.
        labels: [N] int64.
    """

    images: Tensor
    labels: Tensor

    def select(self, indices: Tensor) -> "ImageSet":
        """Return the images at these places."""
        return ImageSet(self.images[indices], self.labels[indices])

    def checksum(self) -> str:
        """Return the SHA-256 of pixels and labels."""
        digest = hashlib.sha256(self.images.contiguous().numpy().data)
        digest.update(self.labels.contiguous().numpy().data)
        return digest.hexdigest()


class Splits(NamedTuple):
    """The official training and test sets of a dataset."""

    train: ImageSet
    test: ImageSet


def cache_directory() -> Path:
    """Return where datasets are kept: ``$SNN_SPARSITY_CACHE``, or ``snn_sparsity`` in the user's cache directory."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "snn_sparsity"
    return Path(os.environ.get("SNN_SPARSITY_CACHE", default))


def offline() -> bool:
    """Return whether ``$SNN_SPARSITY_OFFLINE`` forbids downloads: anything but nothing and 0."""
    return os.environ.get("SNN_SPARSITY_OFFLINE", "") not in ("", "0")


def cached(path: Path, decode: Callable[[], Splits]) -> Splits:
    """Return the decoded dataset kept at ``path``; decode it and keep it there if it is missing or damaged.

    The file holds the tensors and their checksums, and appears under its name only when it is whole.

    Args:
        path: Cache file; its directory is made.
        decode: Makes the dataset, once.

    Returns:
        The dataset.
    """
    found = _read(path)
    if found is not None:
        return found
    splits = decode()
    path.parent.mkdir(parents=True, exist_ok=True)
    needed = sum(part.images.numel() + 8 * part.labels.numel() for part in splits)
    if shutil.disk_usage(path.parent).free < needed:
        raise InputError(
            f"{path.parent} has no room for the decoded dataset ({needed / 2**20:.0f} MiB): set SNN_SPARSITY_CACHE to another directory"
        )
    content = {"splits": [tuple(part) for part in splits], "checksums": [part.checksum() for part in splits]}
    with whole_file(path) as file:
        torch.save(content, file)
    return splits


def _read(path: Path) -> Splits | None:
    if not path.is_file():
        return None
    try:
        content = torch.load(path, weights_only=True)
        splits = Splits(*(ImageSet(*part) for part in content["splits"]))
        intact = [part.checksum() for part in splits] == content["checksums"]
    except Exception:  # noqa: BLE001  # whatever a damaged file makes torch.load raise, the answer is to decode again
        return None
    return splits if intact else None

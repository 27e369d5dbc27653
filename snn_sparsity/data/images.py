"""A labelled image set as one uint8 tensor, and its cache on disk."""

import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from snn_sparsity.runs.files import whole_file
from snn_sparsity.validation import InputError

log = logging.getLogger(__name__)

CHANNELS = (1, 3)
"""Of grey and of coloured images."""
SHOWN = 3
"""Names that a message gives of many."""


class ImageSet(NamedTuple):
    """Images and their classes.

    Attributes:
        images: [N,C,H,W] uint8; [N,3,32,32] in the shipped datamodules.
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


def require_splits(source: str, loaded: object, num_classes: int) -> Splits:
    """Return what a datamodule loaded, which must be a training and a test set that belong to each other and to its classes.

    Args:
        source: What the message begins with.
        loaded: What ``load`` returned.
        num_classes: The labels go up to one less.

    Raises:
        InputError: Naming the set and what is wrong with it.

    Example:
        >>> part = ImageSet(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.tensor([2]))
        >>> require_splits("load()", (part, part), num_classes=2)
        Traceback (most recent call last):
        snn_sparsity.validation.InputError: load(): train.labels holds 2, but the 2 classes go from 0 to 1
    """
    if not (isinstance(loaded, tuple) and len(loaded) == 2 and all(isinstance(part, ImageSet) for part in loaded)):
        wanted = "Splits(train=ImageSet(images, labels), test=ImageSet(images, labels))"
        raise InputError(f"{source} is {_shown(loaded)}; give {wanted}")
    splits = Splits(*loaded)
    for name, (images, labels) in zip(Splits._fields, splits, strict=True):
        if not isinstance(images, Tensor) or images.dtype != torch.uint8 or images.ndim != 4:
            raise InputError(f"{source}: {name}.images is {_shown(images)}; give a tensor [N,C,H,W] of torch.uint8, from 0 to 255")
        if images.shape[3] in CHANNELS and images.shape[1] not in CHANNELS:
            raise InputError(f"{source}: {name}.images is {_shown(images)}, channels last; give [N,C,H,W]: images.permute(0, 3, 1, 2)")
        if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.ndim != 1:
            raise InputError(f"{source}: {name}.labels is {_shown(labels)}; give a tensor [N] of torch.int64")
        if len(images) != len(labels):
            raise InputError(f"{source}: {name} has {len(images)} images and {len(labels)} labels")
        wrong = labels[(labels < 0) | (labels >= num_classes)]
        if len(wrong):
            raise InputError(f"{source}: {name}.labels holds {wrong[0]}, but the {num_classes} classes go from 0 to {num_classes - 1}")
    sizes = [part.images.shape[1:] for part in splits]
    if sizes[0] != sizes[1]:
        told = [list(size) for size in sizes]
        raise InputError(f"{source}: training images are {told[0]}, test images {told[1]}; give one size")
    return splits


def require_every_class(source: str, names: Sequence[str], train: Iterable[int], test: Iterable[int]) -> None:
    """Raise InputError if a class has no training image, and warn of classes without a test image; names and counts are told.

    Args:
        source: What the message begins with.
        names: Of the classes.
        train: Labels of the training images.
        test: Labels of the test images.

    Example:
        >>> require_every_class("data.path=x", ["cat", "dog"], [0, 0], [0, 1])
        Traceback (most recent call last):
        snn_sparsity.validation.InputError: data.path=x: 1 of 2 classes has no training image: 'dog'
    """
    if missing := _without(names, train):
        raise InputError(f"{source}: {_told(missing, names)} no training image: {some_names(missing)}")
    if missing := _without(names, test):
        rank_zero_only(log.warning)(
            "%s: %s no test image: %s; test accuracy says nothing of them", source, _told(missing, names), some_names(missing)
        )


def some_names(names: Iterable[str]) -> str:
    """Return the first few of some names, sorted, and how many more there are.

    Example:
        >>> some_names("edcba")
        "'a', 'b', 'c' and 2 more"
    """
    ordered = sorted(names)
    more = f" and {len(ordered) - SHOWN} more" if len(ordered) > SHOWN else ""
    return ", ".join(map(repr, ordered[:SHOWN])) + more


def _shown(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of {value.dtype} {list(value.shape)}"
    if isinstance(value, np.ndarray):
        return f"a NumPy array of {value.dtype} {list(value.shape)}"
    if isinstance(value, tuple):
        return f"a tuple of {', '.join(type(part).__name__ for part in value) or 'nothing'}"[:200]
    return "None" if value is None else f"of type {type(value).__name__}"


def _without(names: Sequence[str], labels: Iterable[int]) -> list[str]:
    present = set(labels)
    return [name for label, name in enumerate(names) if label not in present]


def _told(missing: Sequence[str], names: Sequence[str]) -> str:
    return f"{len(missing)} of {len(names)} classes {'has' if len(missing) == 1 else 'have'}"


def offline() -> bool:
    """Return whether ``$SNN_SPARSITY_OFFLINE`` forbids downloads: anything but nothing and 0."""
    return os.environ.get("SNN_SPARSITY_OFFLINE", "") not in ("", "0")


def cached(path: Path, decode: Callable[[], Splits]) -> Splits:
    """Return the decoded dataset kept at ``path``; decode it and keep it there if it is missing or damaged.

    The file holds the tensors and their checksums, and appears under its name only when it is whole. A cache saves time and nothing
    else: where it cannot be written, one line is logged and work goes on.

    Args:
        path: Cache file; its directory is made.
        decode: Makes the dataset, once.

    Returns:
        The dataset.
    """
    # Whatever a damaged file makes torch.load raise, the answer is to decode again.
    with suppress(Exception):
        if path.is_file():
            kept = torch.load(path, weights_only=True)
            found = Splits(*(ImageSet(*part) for part in kept["splits"]))
            if [part.checksum() for part in found] == kept["checksums"]:
                return found
    splits = decode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        needed = sum(part.images.numel() + 8 * part.labels.numel() for part in splits)
        if shutil.disk_usage(path.parent).free < needed:
            raise OSError(f"no room for {needed / 2**20:.0f} MiB")
        content = {"splits": [tuple(part) for part in splits], "checksums": [part.checksum() for part in splits]}
        with whole_file(path) as file:
            torch.save(content, file)
    # torch.save tells of a full disk by a RuntimeError.
    except (OSError, RuntimeError, InputError) as error:
        reason = getattr(error.__cause__ or error, "strerror", None) or str(error).partition("\n")[0]
        log.warning("The decoded dataset cannot be kept in %s (%s): it is decoded anew each time; SNN_SPARSITY_CACHE names another place",
                    path.parent, reason)  # fmt: skip
    return splits

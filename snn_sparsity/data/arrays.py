"""Images of one's own in a NumPy archive."""

import hashlib
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from snn_sparsity.cache import cache_directory
from snn_sparsity.data.base import SpikeDataModule
from snn_sparsity.data.images import CHANNELS, ImageSet, Splits, cached, require_every_class
from snn_sparsity.data.recognition import Recognised, recognise
from snn_sparsity.validation import InputError

IMAGES, LABELS = ("train_images", "test_images"), ("train_labels", "test_labels")
SIZE = [32, 32]
AT_ONCE = 1000
DECODING = 1
"""Raised whenever the same archive gives other pixels than before: caches are renewed."""


@dataclass(kw_only=True, eq=False)
class ArrayDataModule(SpikeDataModule):
    """One ``.npz`` archive of images and labels; grey images become RGB, other sizes are resized to 32x32.

    | array | content |
    |---|---|
    | ``train_images``, ``test_images`` | uint8, [N,C,H,W] or [N,H,W,C], C 1 or 3 |
    | ``train_labels``, ``test_labels`` | whole numbers [N] from 0 |
    | ``class_names`` | text [K]; without it classes are called by their numbers |
    | ``train_original``, ``test_original`` | bool [N], False where pixels are not the original ones; optional, for people |

    Images of 32x32 RGB are taken as they are, in their order. The archive is read once and kept in the cache under its checksum. If its
    content is CIFAR-10's, whatever the file's name, runs on it count as runs on CIFAR-10. See :class:`SpikeDataModule` for the other
    arguments.

    Args:
        path: The archive.

    Raises:
        InputError: If there is no such archive, or an array is missing; when it is read, for an array that is not as above.
    """

    path: str

    def __post_init__(self) -> None:
        super().__post_init__()
        self._recognised: Recognised | None = None
        if not os.path.exists(self.path):
            raise self._refusal("there is no such file")
        if not zipfile.is_zipfile(self.path):
            raise self._refusal("no .npz archive; numpy.savez writes one")
        names = self._read(lambda archive: list(archive.files))
        missing = [name for name in (*IMAGES, *LABELS) if name not in names]
        if missing:
            raise self._refusal(f"it lacks {', '.join(missing)}; it holds {', '.join(names) or 'nothing'}"[:500])

    @cached_property
    def class_names(self) -> list[str]:
        """``class_names`` of the archive, or ``0``, ``1``, ... up to the largest label; at least two."""
        given = self._array("class_names")
        if given is None:
            labels = self._labels("train_labels")
            if labels.max() >= len(labels):
                raise self._refusal(f"train_labels go up to {labels.max()}, but there are {len(labels)} images: some class has none")
            names = [str(label) for label in range(int(labels.max()) + 1)]
        else:
            if given.dtype.kind != "U" or given.ndim != 1:
                raise self._refusal(f"class_names is {_told(given)}; give text [K]")
            names = given.tolist()
        if len(set(names)) < max(len(names), 2):
            raise self._refusal(f"there are {len(names)} class names, {len(set(names))} of them different; at least two are needed")
        return names

    @property
    def num_classes(self) -> int:
        """Number of class names."""
        return len(self.class_names)

    @property
    def recognised(self) -> Recognised | None:
        """Which known dataset this is, judged by its content; None before it is loaded and for any other."""
        return self._recognised

    def load(self) -> Splits:
        """Return the images, from the cache where they have been read before."""
        try:
            with open(self.path, "rb") as file:
                checksum = hashlib.file_digest(file, "sha256").hexdigest()[:24]
        except OSError as error:
            raise self._refusal(f"it cannot be read ({error.strerror})") from error
        splits = cached(cache_directory() / f"arrays-{DECODING}-{checksum}.pt", self._decode)
        labels = [part.labels.tolist() for part in splits]
        require_every_class(f"data.path={self.path}", self.class_names, *labels)
        self._recognised = recognise(splits)
        return splits

    def _decode(self) -> Splits:
        images, labels = [self._images(name) for name in IMAGES], [self._labels(name) for name in LABELS]
        if images[0].shape[1:] != images[1].shape[1:]:
            raise self._refusal(f"training images are {_size(images[0])}, test images {_size(images[1])}; give one size")
        for part, numbers, name in zip(images, labels, LABELS, strict=True):
            if len(part) != len(numbers):
                raise self._refusal(f"there are {len(part)} images and {len(numbers)} {name}")
            if numbers.max() >= self.num_classes:
                raise self._refusal(f"{name} holds {numbers.max()}, but the {self.num_classes} classes go from 0 to {self.num_classes - 1}")
            flags = self._array(original := name.replace("labels", "original"))
            if flags is not None and (flags.dtype != bool or flags.shape != numbers.shape):
                raise self._refusal(f"{original} is {_told(flags)}; give bool [{len(numbers)}]")
        parts = [ImageSet(_colours(part), torch.from_numpy(numbers.astype(np.int64))) for part, numbers in zip(images, labels, strict=True)]
        return Splits(*parts)

    def _images(self, name: str) -> np.ndarray:
        """Return images as they are, but with channels first."""
        images = self._array(name)
        if images is None or images.dtype != np.uint8 or images.ndim != 4 or not images.size:
            raise self._refusal(f"{name} is {_told(images)}; give uint8 [N,C,H,W] or [N,H,W,C], at least one image")
        first, last = images.shape[1] in CHANNELS, images.shape[3] in CHANNELS
        if first == last:
            raise self._refusal(f"{name} is {_told(images)}: {'either' if first else 'neither'} end may be channels; give 1 or 3 of them")
        return images if first else images.transpose(0, 3, 1, 2)

    def _labels(self, name: str) -> np.ndarray:
        labels = self._array(name)
        if labels is None or labels.dtype.kind not in "iu" or labels.ndim != 1 or not labels.size:
            raise self._refusal(f"{name} is {_told(labels)}; give whole numbers [N]")
        if labels.min() < 0:
            raise self._refusal(f"{name} holds {labels.min()}; give whole numbers from 0")
        return labels

    def _array(self, name: str) -> np.ndarray | None:
        """Return an array of the archive; None if it is not there, or something else."""
        array = self._read(lambda archive: archive[name] if name in archive.files else None)
        return array if isinstance(array, np.ndarray) else None

    def _read(self, look: Callable[[Any], Any]) -> Any:
        try:
            with np.load(self.path, allow_pickle=False) as archive:
                return look(archive)
        except Exception as error:  # a damaged archive raises whatever its damage leads to, pickled objects a ValueError
            reason = str(error).partition("\n")[0][:200]
            raise self._refusal(f"it cannot be read ({type(error).__name__}: {reason})") from error

    def _refusal(self, why: str) -> InputError:
        return InputError(f"data.path={self.path}: {why}")


def _colours(images: np.ndarray) -> torch.Tensor:
    """Return images [N,C,H,W] as [N,3,32,32]."""
    from torchvision.transforms.v2 import functional as transforms

    parts = torch.from_numpy(np.ascontiguousarray(images)).split(AT_ONCE)
    if list(images.shape[2:]) != SIZE:
        parts = tuple(transforms.resize(part, SIZE, antialias=True) for part in parts)
    return torch.cat(parts).expand(-1, 3, -1, -1).contiguous()


def _told(array: np.ndarray | None) -> str:
    return "no array" if array is None else f"{array.dtype} {list(array.shape)}"


def _size(images: np.ndarray) -> str:
    return "x".join(map(str, images.shape[1:]))

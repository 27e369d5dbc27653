"""Any folder of class folders."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from snn_sparsity.cache import cache_directory
from snn_sparsity.data.base import SpikeDataModule
from snn_sparsity.data.image_files import (
    LOOKED_FOR,
    Background,
    contents,
    entries,
    is_image,
    is_left_behind,
    read_image,
    require_inside,
    tell_left_out,
)  # fmt: skip
from snn_sparsity.data.images import ImageSet, Splits, cached, require_every_class
from snn_sparsity.validation import InputError, require_choice, require_train_and_test

TEST_ORDER_SEED = 0
DECODING = 3
"""Raised whenever :func:`read_image` gives other pixels than before: caches are renewed."""
Files = Sequence[tuple[str, int]]


@dataclass(kw_only=True, eq=False)
class ImageFolderDataModule(SpikeDataModule):
    """Images in ``root/train/<class>/`` and ``root/test/<class>/``, resized to 32x32 RGB.

    The test set is put in one fixed random order. Decoded once; the cache is renewed when a file appears, goes, or changes its
    size or time. Hidden files and what programs leave behind are no data; what else is not used is told once, with names and counts.
    See :class:`SpikeDataModule` for the other arguments.

    Args:
        root: The folder; it holds ``train`` and ``test``, each with the same class folders.
        background: ``white`` or ``black``: what shows through transparent parts of an image.

    Raises:
        InputError: If the folder or its classes are missing, or a class has no training image; when decoding, naming an image that
            cannot be read.
    """

    root: str
    background: Background = "white"

    def __post_init__(self) -> None:
        require_choice("background", self.background, ("white", "black"))
        super().__post_init__()
        require_train_and_test(self.root)

    @cached_property
    def class_names(self) -> list[str]:
        """Names of the class folders of ``train``, sorted; at least two."""
        folder = Path(self.root) / "train"
        names = _folders_in(folder)
        if not names:
            raise InputError(f"data.root={self.root}: no class folders in {folder}")
        if len(names) < 2:
            raise InputError(f"data.root={self.root}: {names[0]!r} is the only class folder in {folder}; at least two are needed")
        return names

    @property
    def num_classes(self) -> int:
        """Number of class folders."""
        return len(self.class_names)

    def load(self) -> Splits:
        """Return the images, from the cache where they have been decoded before."""
        train, test = self._files("train"), self._files("test")
        require_every_class(f"data.root={self.root}", self.class_names, *([label for _, label in files] for files in (train, test)))
        unused = [path for path in entries(Path(self.root)) if path.name not in ("train", "test") and not is_left_behind(path.name)]
        tell_left_out(Path(self.root), "beside train and test", [path for path in unused if os.path.isdir(path) or is_image(path)])
        digest = hashlib.sha256(f"{DECODING} {self.background} ".encode())
        for path, label in [*train, *test]:
            try:
                status = Path(path).stat()
            except OSError as error:
                raise InputError(f"{path} is no readable image ({error.strerror})") from error
            digest.update(os.fsencode(f"{Path(path).resolve()}\0{label}\0{status.st_size}\0{status.st_mtime_ns}\n"))
        cache = cache_directory() / f"folder-{digest.hexdigest()[:24]}.pt"
        splits = cached(cache, lambda: Splits(self._decode(train), self._decode(test)))
        # Files come class by class; whoever looks at the first images must see all classes.
        order = torch.randperm(len(test), generator=torch.Generator().manual_seed(TEST_ORDER_SEED))
        return Splits(splits.train, splits.test.select(order))

    def _files(self, split: str) -> Files:
        folder = Path(self.root) / split
        index = {name: label for label, name in enumerate(self.class_names)}
        classes = _folders_in(folder)
        others = [name for name in classes if name not in index]
        if others:
            raise InputError(f"data.root={self.root}: class {others[0]!r} is in {folder} but not in train")
        found = {name: contents(folder / name) for name in classes}
        beside = [path for path in entries(folder) if path.name not in classes]
        left_behind = [path for path in beside if is_left_behind(path.name)]
        tell_left_out(
            folder, "hidden or left behind by programs", [*left_behind, *(path for one in found.values() for path in one.left_behind)]
        )
        tell_left_out(folder, "outside class folders", [path for path in beside if path not in left_behind])
        tell_left_out(folder, f"of other endings ({LOOKED_FOR})", [path for one in found.values() for path in one.others])
        files = [
            (str(file), index[name])
            for name, one in found.items()
            for file in sorted(one.images, key=lambda file: (str(file.parent), file.name))
        ]
        if not files:
            raise InputError(f"data.root={self.root}: no images in {folder} ({LOOKED_FOR})")
        require_inside(Path(self.root), [path for path, _ in files])
        return files

    def _decode(self, files: Files) -> ImageSet:
        images = torch.stack([read_image(path, self.background) for path, _ in files])
        return ImageSet(images, torch.tensor([label for _, label in files]))


def _folders_in(folder: Path) -> list[str]:
    return sorted(path.name for path in entries(folder) if os.path.isdir(path) and not is_left_behind(path.name))

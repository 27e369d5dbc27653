"""Any folder of class folders."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms.v2 import functional as transforms

from snn_sparsity.data.base import SpikeDataModule
from snn_sparsity.data.images import ImageSet, Splits, cache_directory, cached
from snn_sparsity.validation import InputError

SIZE = [32, 32]
TEST_ORDER_SEED = 0
DECODING = 2
"""Raised whenever :func:`read_image` gives other pixels than before: caches are renewed."""
Files = Sequence[tuple[str, int]]


@dataclass(kw_only=True, eq=False)
class ImageFolderDataModule(SpikeDataModule):
    """Images in ``root/train/<class>/`` and ``root/test/<class>/``, resized to 32x32 RGB.

    The test set is put in one fixed random order. Decoded once; the cache is renewed when a file appears, goes, or changes its
    size or time. See :class:`SpikeDataModule` for the other arguments.

    Args:
        root: The folder; it holds ``train`` and ``test``, each with the same class folders.

    Raises:
        InputError: If the folder, its classes or images are missing; when decoding, naming an image that cannot be read.
    """

    root: str

    def __post_init__(self) -> None:
        super().__post_init__()
        folder = Path(self.root)
        for split in ("train", "test"):
            # Unlike Path.is_dir, it is no error to ask it about a name too long to exist.
            if not os.path.isdir(folder / split):
                raise InputError(
                    f"data.root={self.root}: {folder / split} is no folder; give one that holds train/<class>/ and test/<class>/"
                )

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

    def prepare_data(self) -> None:
        """Decode the images into the cache."""
        self.load()

    def load(self) -> Splits:
        """Return the images, from the cache where they have been decoded before."""
        train, test = self._files("train"), self._files("test")
        path = cache_directory() / f"folder-{_fingerprint([*train, *test])}.pt"
        splits = cached(path, lambda: Splits(_decode(train), _decode(test)))
        # Files come class by class; whoever looks at the first images must see all classes.
        order = torch.randperm(len(test), generator=torch.Generator().manual_seed(TEST_ORDER_SEED))
        return Splits(splits.train, splits.test.select(order))

    def _files(self, split: str) -> Files:
        folder = Path(self.root) / split
        index = {name: label for label, name in enumerate(self.class_names)}
        others = [name for name in _folders_in(folder) if name not in index]
        if others:
            raise InputError(f"data.root={self.root}: class {others[0]!r} is in {folder} but not in train")
        files = [(str(file), label) for name, label in index.items() for file in _by_folder(image_files(folder / name))]
        if not files:
            raise InputError(f"data.root={self.root}: no images in {folder} (looked for {', '.join(IMG_EXTENSIONS)})")
        require_inside(Path(self.root), [path for path, _ in files])
        return files


def require_inside(folder: Path, files: Iterable[str | Path]) -> None:
    """Raise InputError, naming the file, if a link leads out of the folder."""
    root = os.path.realpath(folder)
    for file in files:
        # Unlike Path.resolve, it takes a link that leads to itself.
        if not Path(there := os.path.realpath(file)).is_relative_to(root):
            raise InputError(f"{file} leads out of {folder}, to {there}: put the image itself into the folder")


def image_files(folder: Path, above: frozenset[str] = frozenset()) -> Iterator[Path]:
    """Yield what is named like an image in a folder and below it, also behind links; in no order.

    Raises:
        InputError: If a folder cannot be listed, or a link leads back to a folder that it lies in.
    """
    here = os.path.realpath(folder)
    if here in above:
        raise InputError(f"{folder} is a link to a folder that it lies in: remove it")
    for path in _entries(folder):
        if os.path.isdir(path):
            yield from image_files(path, above | {here, *map(str, Path(here).parents)})
        elif path.suffix.lower() in IMG_EXTENSIONS:
            yield path


def read_image(path: str | Path) -> torch.Tensor:
    """Return the image at ``path`` as [3,32,32] uint8; of 16 bits a channel, the upper eight.

    Raises:
        InputError: Naming the file, if it is no readable image, or has 32 bits a channel.
    """
    try:
        # Opening a pipe would wait for somebody to write to it.
        if not os.path.isfile(path):
            raise FileNotFoundError(path)
        with Image.open(path) as image:
            mode, pixels = image.mode, transforms.pil_to_tensor(_eight_bits(image).convert("RGB"))
        small = pixels if list(pixels.shape[1:]) == SIZE else transforms.resize(pixels, SIZE, antialias=True)
    except Exception as error:  # Pillow raises whatever the damage makes it raise
        raise InputError(f"{path} is no readable image ({type(error).__name__})") from error
    if mode in ("I", "F"):
        raise InputError(f"{path} has 32 bits a channel: where its black and white are is not known; save it with 8 or 16")
    return small


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return a grey image of 16 bits with its upper eight, as Pillow itself does for colours; ``convert`` would clip it to white."""
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)) if image.mode.startswith("I;16") else image


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"{folder} cannot be listed: {error.strerror}") from error


def _folders_in(folder: Path) -> list[str]:
    return sorted(path.name for path in _entries(folder) if os.path.isdir(path))


def _by_folder(files: Iterator[Path]) -> list[Path]:
    return sorted(files, key=lambda file: (str(file.parent), file.name))


def _decode(files: Files) -> ImageSet:
    images = torch.stack([read_image(path) for path, _ in files])
    return ImageSet(images, torch.tensor([label for _, label in files]))


def _fingerprint(files: Files) -> str:
    digest = hashlib.sha256(bytes([DECODING]))
    for path, label in files:
        try:
            status = Path(path).stat()
        except OSError as error:
            raise InputError(f"{path} is no readable image ({error.strerror})") from error
        digest.update(os.fsencode(f"{Path(path).resolve()}\0{label}\0{status.st_size}\0{status.st_mtime_ns}\n"))
    return digest.hexdigest()[:24]

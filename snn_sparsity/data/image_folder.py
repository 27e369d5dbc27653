"""Any folder of class folders."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image, UnidentifiedImageError
from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset
from torchvision.transforms.v2 import functional as transforms

from snn_sparsity.checks import InputError
from snn_sparsity.data.base import SpikeDataModule
from snn_sparsity.data.images import ImageSet, Splits, cache_directory, cached

SIZE = [32, 32]
TEST_ORDER_SEED = 0
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
            if not (folder / split).is_dir():
                raise InputError(
                    f"data.root={self.root}: {folder / split} is no folder; give one that holds train/<class>/ and test/<class>/"
                )

    @cached_property
    def class_names(self) -> list[str]:
        """Names of the class folders of ``train``, sorted."""
        try:
            names, _ = find_classes(str(Path(self.root) / "train"))
        except FileNotFoundError:
            raise InputError(f"data.root={self.root}: no class folders in {Path(self.root) / 'train'}") from None
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
        others = {path.name for path in folder.iterdir() if path.is_dir()} - index.keys()
        if others:
            raise InputError(f"data.root={self.root}: class {sorted(others)[0]!r} is in {folder} but not in train")
        files: Files = make_dataset(str(folder), index, extensions=IMG_EXTENSIONS, allow_empty=True)
        if not files:
            raise InputError(f"data.root={self.root}: no images in {folder} (looked for {', '.join(IMG_EXTENSIONS)})")
        require_inside(Path(self.root), [path for path, _ in files])
        return files


def require_inside(folder: Path, files: Iterable[str | Path]) -> None:
    """Raise InputError, naming the file, if a link leads out of the folder."""
    root = folder.resolve()
    for file in files:
        if not Path(file).resolve().is_relative_to(root):
            raise InputError(f"{file} leads out of {folder}, to {Path(file).resolve()}: put the image itself into the folder")


def read_image(path: str | Path) -> torch.Tensor:
    """Return the image at ``path`` as [3,32,32] uint8.

    Raises:
        InputError: Naming the file, if it is no readable image.
    """
    try:
        with Image.open(path) as image:
            pixels = transforms.pil_to_tensor(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} is no readable image ({type(error).__name__})") from error
    return pixels if list(pixels.shape[1:]) == SIZE else transforms.resize(pixels, SIZE, antialias=True)


def _decode(files: Files) -> ImageSet:
    images = torch.stack([read_image(path) for path, _ in files])
    return ImageSet(images, torch.tensor([label for _, label in files]))


def _fingerprint(files: Files) -> str:
    digest = hashlib.sha256()
    for path, label in files:
        status = Path(path).stat()
        digest.update(f"{Path(path).resolve()}\0{label}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:24]

"""CIFAR-10 and CIFAR-100 in their original pixels."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.error import URLError

import torch
from torch import Tensor

from snn_sparsity.cache import cache_directory
from snn_sparsity.data.base import SpikeDataModule
from snn_sparsity.data.images import ImageSet, Splits, cached, offline
from snn_sparsity.validation import InputError, require_choice


class Source(NamedTuple):
    """What is known of a dataset before it is there."""

    dataset: str
    classes: list[str]


CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"
CIFAR100 = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle caterpillar cattle
    chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house
    kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange
    orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal
    shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
    tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
SOURCES = {"cifar10": Source("CIFAR10", CIFAR10.split()), "cifar100": Source("CIFAR100", CIFAR100.split())}


@dataclass(kw_only=True, eq=False)
class CIFARDataModule(SpikeDataModule):
    """CIFAR-10 or CIFAR-100: 50,000 training and 10,000 test images of 32x32 pixels; downloaded once.

    Source: Krizhevsky, Learning multiple layers of features from tiny images (2009). See :class:`SpikeDataModule` for the
    other arguments.

    Args:
        name: ``cifar10`` or ``cifar100``.
        root: Where the archive lies or is downloaded to; null is the cache directory (``$SNN_SPARSITY_CACHE``).
        url: Another place to download the archive from; its MD5 must be that of the original.

    Raises:
        InputError: For an unknown name or a url that is not http(s); in ``prepare_data``, if the archive is damaged or cannot be had.
    """

    name: Literal["cifar10", "cifar100"] = "cifar10"
    root: str | None = None
    url: str | None = None

    def __post_init__(self) -> None:
        require_choice("name", self.name, SOURCES)
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            raise InputError(f"url={self.url!r} is not allowed: give an http(s) address; an archive at hand goes into root")
        super().__post_init__()

    @property
    def num_classes(self) -> int:
        """10 or 100."""
        return len(SOURCES[self.name].classes)

    @property
    def class_names(self) -> list[str]:
        """Names as the dataset gives them, known before any download."""
        return SOURCES[self.name].classes

    def load(self) -> Splits:
        """Return the dataset, from the cache where it has been decoded before."""
        return cached(self._directory / f"{self.name}.pt", lambda: Splits(self._decode(train=True), self._decode(train=False)))

    @property
    def _directory(self) -> Path:
        return Path(self.root) if self.root else cache_directory()

    def _decode(self, train: bool) -> ImageSet:
        dataset = self._open(train)
        images: Tensor = torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous()
        return ImageSet(images, torch.tensor(dataset.targets))

    def _open(self, train: bool) -> Any:
        from torchvision import datasets
        from torchvision.datasets.utils import check_integrity

        original = getattr(datasets, SOURCES[self.name].dataset)
        source: Any = type(original.__name__, (original,), {"url": self.url or original.url})
        archive = self._directory / original.filename
        existed = self._directory.exists()
        # An archive that is there is unpacked, and one that is unpacked only checked; the MD5 of every file must be right.
        may_download = not offline() or check_integrity(str(archive), original.tgz_md5)
        try:
            return source(str(self._directory), train=train, download=may_download)
        except (URLError, OSError, RuntimeError) as error:
            if not existed:
                with suppress(OSError):
                    self._directory.rmdir()
            missing = f"data.name={self.name}: no intact archive at {archive}"
            put = f"Put {original.filename} (MD5 {original.tgz_md5}) there"
            if not may_download:
                raise InputError(f"{missing}, and SNN_SPARSITY_OFFLINE forbids to download it. {put}") from error
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(f"{missing} and none could be downloaded from {source.url} ({reason}). {put}, or give --data.url") from error

"""Images that need no file."""

from dataclasses import dataclass

import torch

from snn_sparsity.data.base import SpikeDataModule
from snn_sparsity.data.images import ImageSet, Splits


@dataclass(kw_only=True, eq=False)
class NoiseImages(SpikeDataModule):
    """Random images of ten classes: as fast or slow to train on as any.

    Args:
        images: How many to train on.
        tested: How many to test on.
    """

    images: int
    tested: int = 16

    @property
    def num_classes(self) -> int:
        """10."""
        return 10

    @property
    def class_names(self) -> list[str]:
        """``0`` to ``9``."""
        return [str(index) for index in range(10)]

    def load(self) -> Splits:
        """Return the images."""
        return Splits(*(_noise(count) for count in (self.images, self.tested)))


def _noise(count: int) -> ImageSet:
    generator = torch.Generator().manual_seed(count)
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return ImageSet(images, torch.randint(0, 10, (count,), generator=generator))

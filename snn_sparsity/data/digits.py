"""Scikit-learn's handwritten digits: real images that need no download."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from snn_sparsity.data.base import SpikeDataModule
from snn_sparsity.data.images import ImageSet, Splits

TEST_IMAGES = 360


@dataclass(kw_only=True, eq=False)
class DigitsDataModule(SpikeDataModule):
    """1,797 handwritten digits of 8x8 pixels and 17 grey levels, scaled to 32x32 RGB.

    The set has no official split: 360 images, drawn once and for all with the classes in proportion, are the test set. Source:
    the UCI optical recognition test set, as scikit-learn ships it. See :class:`SpikeDataModule` for the arguments; a mirrored digit is
    another sign, so that nothing is flipped unless it is asked for.

    Example:
        >>> DigitsDataModule().load().train.images.shape
        torch.Size([1437, 3, 32, 32])
    """

    flip: bool = False

    @property
    def num_classes(self) -> int:
        """10."""
        return 10

    @property
    def class_names(self) -> list[str]:
        """``0`` to ``9``."""
        return [str(digit) for digit in range(10)]

    def load(self) -> Splits:
        """Return the digits, scaled."""
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        digits = load_digits()
        small = torch.from_numpy(digits.images).float().unsqueeze(1) * (255 / 16)
        large = F.interpolate(small, size=(32, 32), mode="bilinear", align_corners=False)
        images = large.round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()
        everything = ImageSet(images, torch.from_numpy(digits.target).long())
        train, test = train_test_split(range(len(images)), test_size=TEST_IMAGES, stratify=digits.target, random_state=0)
        return Splits(everything.select(torch.tensor(train)), everything.select(torch.tensor(test)))

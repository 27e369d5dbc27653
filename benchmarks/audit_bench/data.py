"""Handwritten digits with a fifth of their contrast, so that 8 grey levels matter as they do on photographs."""

from typing import NamedTuple

import torch
from sklearn.datasets import load_digits
from torch import Tensor

AUDITED = 500
SEED = 3407
CONTRAST = 0.2
CENTRE = 0.5


class Digits(NamedTuple):
    """Images [n,1,8,8] uint8 and labels [n] int64."""

    images: Tensor
    labels: Tensor

    @property
    def pixels(self) -> Tensor:
        """The images in [0,1]."""
        return self.images.float() / 255


def digits() -> tuple[Digits, Digits]:
    """Return the 1,297 digits to train on and the 500 to audit on, drawn once and for all: from scikit-learn, grey levels 102 to 153."""
    found = load_digits()
    order = torch.randperm(len(found.target), generator=torch.Generator().manual_seed(0))
    values = torch.from_numpy(found.images).float().unsqueeze(1)[order] / 16
    images = ((CENTRE + CONTRAST * (values - 0.5)) * 255).round().to(torch.uint8)
    labels = torch.from_numpy(found.target).long()[order]
    return Digits(images[AUDITED:], labels[AUDITED:]), Digits(images[:AUDITED], labels[:AUDITED])

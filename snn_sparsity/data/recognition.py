"""Is this CIFAR-10? Told by the content of the images, not by the name of a file."""

import hashlib
import logging
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np
from lightning.pytorch.utilities import rank_zero_only

from snn_sparsity.data.images import ImageSet, Splits

log = logging.getLogger(__name__)

ENOUGH = 0.98
"""Share of a split's images that must be known."""


class Recognised(NamedTuple):
    """A known dataset, or a part of one.

    Attributes:
        dataset: ``cifar10``.
        images: Number of images looked at.
        jpeg: How many of them are JPEG versions of a known image, not the original pixels.
        unknown: How many are no known image of this split and class, or come twice.
        test: How many of these two kinds are test images.
    """

    dataset: str
    images: int
    jpeg: int
    unknown: int
    test: int


def fingerprints(part: ImageSet, test: bool) -> np.ndarray:
    """Return 32 bits for each image: BLAKE2b of its split, its label and its pixels [C,H,W].

    Example:
        >>> import torch
        >>> fingerprints(ImageSet(torch.zeros(1, 3, 2, 2, dtype=torch.uint8), torch.tensor([7])), test=False).dtype
        dtype('uint32')
    """
    rows = zip(part.labels.tolist(), part.images.contiguous().numpy(), strict=True)
    digests = (hashlib.blake2b(bytes([test, min(label, 255)]) + image.tobytes(), digest_size=4).digest() for label, image in rows)
    return np.frombuffer(b"".join(digests), dtype="<u4")


def recognise(splits: Splits) -> Recognised | None:
    """Return which known dataset these are images of; None if they are not, or only some of them.

    All images, in any order, or any part of them: each image must come with its label, in its split, once. Images of other sizes, other
    labels and images that moved from test to training are no dataset that anybody knows.
    """
    original, jpeg = _table()
    counts = []
    for part, test in zip(splits, (False, True), strict=True):
        found = np.unique(fingerprints(part, test))
        versions, known = int(np.isin(found, jpeg).sum()), int(np.isin(found, original).sum())
        counts.append((len(part.labels), versions, len(part.labels) - known - versions))
    if any(unknown > (1 - ENOUGH) * images for images, _, unknown in counts):
        return None
    images, jpeg_versions, unknown = (sum(column) for column in zip(*counts, strict=True))
    recognised = Recognised("cifar10", images, jpeg_versions, unknown, test=sum(counts[1][1:]))
    told = rank_zero_only(log.warning)
    rank_zero_only(log.info)("The images are %s's (%d of them)", recognised.dataset, recognised.images)
    if recognised.jpeg:
        told("%d of %d images are JPEG versions of %s's, not the original pixels", recognised.jpeg, recognised.images, recognised.dataset)
    if recognised.unknown:
        told("%d of %d images are not known as %s's", recognised.unknown, recognised.images, recognised.dataset)
    return recognised


def originals(part: ImageSet, test: bool) -> int:
    """Return how many of a split's images are known, in their original pixels and with their labels."""
    return int(np.isin(fingerprints(part, test), _table()[0]).sum())


@cache
def _table() -> tuple[np.ndarray, np.ndarray]:
    """Return the fingerprints of CIFAR-10's original images, and of the JPEG versions of 93 more."""
    with np.load(str(files("snn_sparsity.data").joinpath("cifar10.npz")), allow_pickle=False) as table:
        return table["original"], table["jpeg"]

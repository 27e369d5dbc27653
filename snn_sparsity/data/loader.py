"""Batches of an image set, in an order that depends only on (seed, epoch)."""

from collections.abc import Iterator
from math import ceil
from typing import Any, NamedTuple

import torch
from torch import Tensor

from snn_sparsity.data.images import ImageSet
from snn_sparsity.randomness import mix, stream

FLIP, ENCODE, CROP = 1, 2, 3
"""Purposes of random numbers, so that two of them never share a stream."""


class RawBatch(NamedTuple):
    """What the loader hands over, before flip and encoding.

    Attributes:
        images: [N,3,32,32] uint8.
        labels: [N] int64.
        flip: [N] bool, the images to mirror.
        seed: Seed of a stochastic encoder for this batch.
        shift: [N,2] int64, pixels that an image moves down and to the right; what comes in is black.
    """

    images: Tensor
    labels: Tensor
    flip: Tensor
    seed: int
    shift: Tensor


class EpochOrder:
    """Which images make each batch of an epoch; Lightning tells it the epoch, as it tells any sampler.

    In training, global batch b is the same on any number of ranks, each of which takes an equal part. In evaluation whole
    batches are dealt to the ranks in turn, so that each image comes exactly once, with the same neighbours; where there are too few
    for the last round, some ranks get an empty batch. All ranks take equally many steps, or one would wait for another for ever.

    Args:
        size: Number of images.
        batch_size: Images a batch on one rank.
        seed: Seed of the shuffle.
        train: Whether to shuffle and give every rank as many images.
        rank: This process.
        world_size: Number of processes.
        same: Whether every epoch is like the first, as to overfit a few batches.

    Example:
        >>> [batch.tolist() for batch in EpochOrder(5, 2, seed=0, train=False).batches()]
        [[0, 1], [2, 3], [4]]
    """

    def __init__(self, size: int, batch_size: int, seed: int, train: bool, rank: int = 0, world_size: int = 1, same: bool = False) -> None:
        self.same = same
        self.size, self.batch_size, self.seed, self.train, self.rank, self.world_size = size, batch_size, seed, train, rank, world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is given next."""
        self.epoch = epoch

    @property
    def drawn(self) -> int:
        """The epoch whose random numbers are drawn."""
        return 0 if self.same else self.epoch

    def batches(self) -> list[Tensor]:
        """Return the places of the images of each of this rank's batches."""
        if not self.train:
            batches = torch.arange(self.size).split(self.batch_size)
            missing = -len(batches) % self.world_size
            return [*batches, *[torch.arange(0)] * missing][self.rank :: self.world_size]
        order = torch.randperm(self.size, generator=stream(self.seed, self.drawn))
        # No rank can train on nothing: the first images come again at the end.
        order = torch.cat([order, order[: -self.size % self.world_size]])
        return list(order[self.rank :: self.world_size].split(self.batch_size))

    def __len__(self) -> int:
        """Return the number of batches, on any rank."""
        return ceil(self.size / (self.batch_size * self.world_size))


class EpochLoader:
    """Iterate over an image set in batches; order and flips depend only on (seed, epoch), and it resumes inside an epoch.

    Args:
        data: The images.
        batch_size: Images a batch on this rank; the last batch may be smaller.
        seed: Seed of order, flips and encoding.
        train: Whether to shuffle and flip.
        rank: This process.
        world_size: Number of processes.
        crop: Largest shift of a training image, in pixels.
        replays: How often each training batch comes in a row, the same each time but for the draws of a stochastic encoder.
        same: Whether every epoch is like the first.

    Images and labels are gathered where they are: on a GPU no step waits for the host.

    Example:
        >>> data = ImageSet(torch.zeros(5, 3, 32, 32, dtype=torch.uint8), torch.arange(5))
        >>> [batch.labels.tolist() for batch in EpochLoader(data, 2, seed=0, train=False)]
        [[0, 1], [2, 3], [4]]
    """

    batch_sampler = None
    """Lightning asks every loader that has a ``sampler`` for one."""

    def __init__(
        self,
        data: ImageSet,
        batch_size: int,
        seed: int,
        train: bool,
        rank: int = 0,
        world_size: int = 1,
        crop: int = 0,
        replays: int = 1,
        same: bool = False,
    ) -> None:
        self.data = data
        self.crop, self.replays = crop, replays
        self.batch_size = batch_size
        self.train = train
        self.sampler = EpochOrder(len(data.labels), batch_size, seed, train, rank, world_size, same)
        self._position = {"epoch": 0, "batches_done": 0}
        self._resume_at: dict[str, Any] | None = None

    def __len__(self) -> int:
        """Return the number of batches of an epoch on this rank."""
        return len(self.sampler) * self.replays

    def __iter__(self) -> Iterator[RawBatch]:
        """Yield the batches of the sampler's epoch that are still to come."""
        epoch, batches, device = self.sampler.epoch, self.sampler.batches(), self.data.labels.device
        size, drawn = self.sampler.size, (self.sampler.seed, self.sampler.drawn)
        flips, shifts = torch.zeros(size, dtype=torch.bool), torch.zeros(size, 2, dtype=torch.int64)
        if self.train:
            flips = torch.rand(size, generator=stream(*drawn, FLIP)) < 0.5  # a coin
        if self.train and self.crop:
            shifts = torch.randint(-self.crop, self.crop + 1, (size, 2), generator=stream(*drawn, CROP))
        flips, shifts = flips.to(device), shifts.to(device)
        # Evaluation draws the same code in every epoch: a change of accuracy must come from the network.
        key = self.sampler.seed, self.sampler.drawn if self.train else -1, ENCODE
        places = torch.cat(batches).to(device).split([len(batch) for batch in batches])
        # Only a loaded state is resumed: an iteration that was broken off, as the sanity check's is, starts again.
        resumed, self._resume_at = self._resume_at, None
        done = resumed["batches_done"] if resumed is not None and resumed["epoch"] == epoch else 0
        for number in range(done, len(self)):
            self._position = {"epoch": epoch, "batches_done": number + 1}
            chosen = places[number // self.replays]
            yield RawBatch(
                *self.data.select(chosen), flips[chosen], mix(*key, number * self.sampler.world_size + self.sampler.rank), shifts[chosen]
            )

    def state_dict(self) -> dict[str, Any]:
        """Return how far the epoch has come; Lightning keeps it in checkpoints."""
        return dict(self._position)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the batches that were done of that epoch; other epochs start at their beginning."""
        self._resume_at = dict(state)

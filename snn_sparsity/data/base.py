"""The datamodule all datasets share: splits, loaders, flip and encoding."""

import logging
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import torch
from lightning import LightningDataModule

from snn_sparsity.batch import SpikeBatch
from snn_sparsity.data.images import ImageSet, Splits, require_splits
from snn_sparsity.data.loader import EpochLoader, RawBatch
from snn_sparsity.data.recognition import Recognised
from snn_sparsity.encoders import Encoder, PhaseEncoder
from snn_sparsity.hyperparameters import objects_to_ignore
from snn_sparsity.randomness import stream
from snn_sparsity.validation import InputError, require_number

log = logging.getLogger(__name__)

MOST_CROP = 32
HOLD_OUT_SEED = 2509_23762
"""Seed of the held-out split: the same images are held out whatever the seed of a run."""


@dataclass(kw_only=True, eq=False)
class SpikeDataModule(LightningDataModule, ABC):
    """Images held as one uint8 tensor; flipped and encoded on the device, a batch at a time.

    A dataset is a subclass with ``num_classes``, ``class_names`` and ``load``.

    Args:
        encoder: Spike code; null is the paper's phase code with T=10.
        batch_size: Images a training step on each device.
        eval_batch_size: Images a batch in validation, test and predict; null is ``batch_size``.
        validation: ``test`` validates on the official test set, as the paper does; a number in (0, 1) holds out that share
            of the training set.
        flip: Whether training images are mirrored with probability 1/2.
        crop: Shift training images at random by up to this many pixels each way, black coming in; 4 is "random crop, padding 4".
        train_samples: Use only this many training images, drawn once and for all; null is all.
        test_samples: Use only the first images of the test set; null is all.
        seed: Seed of order, flips and stochastic codes; the command line sets it to ``seed_everything``.

    Raises:
        InputError: For a number outside its range.
    """

    encoder: Encoder | None = None
    batch_size: int = 16
    eval_batch_size: int | None = None
    validation: Literal["test"] | float = 0.1
    flip: bool = True
    crop: int = 0
    train_samples: int | None = None
    test_samples: int | None = None
    seed: int = 3407

    def __post_init__(self) -> None:
        super().__init__()
        require_number("batch_size", self.batch_size, at_least=1, whole=True)
        require_number("seed", self.seed, at_least=0, whole=True)
        require_number("crop", self.crop, at_least=0, at_most=MOST_CROP, whole=True)
        for name in ("eval_batch_size", "train_samples", "test_samples"):
            if getattr(self, name) is not None:
                require_number(name, getattr(self, name), at_least=1, whole=True)
        if self.validation != "test" and not (isinstance(self.validation, float) and 0 < self.validation < 1):
            raise InputError(f"validation={self.validation!r} is not allowed: give 'test' or a number between 0 and 1")
        self.save_hyperparameters(ignore=objects_to_ignore("encoder"))
        self.spike_encoder = self.encoder or PhaseEncoder()
        self._loaded: Splits | None = None
        self._splits: dict[str, ImageSet] = {}
        self._splits_on_device: dict[tuple[str, torch.device], ImageSet] = {}

    @property
    @abstractmethod
    def num_classes(self) -> int:
        """Number of classes, known before any download."""

    @property
    @abstractmethod
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of the labels."""

    @abstractmethod
    def load(self) -> Splits:
        """Return the official training and test sets: images [N,C,H,W] uint8, labels [N] int64.

        Called on one rank of a machine first, then on every other.
        """

    def prepare_data(self) -> None:
        """Load the dataset once, so that what must be downloaded or decoded is in the cache when other ranks ask for it."""
        if not self._splits:
            self._loaded = self.load()

    def setup(self, stage: str) -> None:
        """Load the dataset once and split it.

        Raises:
            InputError: If what ``load`` returned is no training and test set, or a split has no images.
        """
        if self._splits:
            return
        loaded = self.load() if self._loaded is None else self._loaded
        train, test = require_splits(f"{type(self).__name__}.load()", loaded, self.num_classes)
        self._loaded = None
        order = torch.randperm(len(train.labels), generator=torch.Generator().manual_seed(HOLD_OUT_SEED))
        test = test.select(torch.arange(len(test.labels))[: self.test_samples])
        if self.validation == "test":
            if stage in ("fit", "validate"):
                log.warning("Validating on the test set, as the paper does: the best epoch is chosen with the images it is judged by.")
            held_out = test
        else:
            count = max(1, round(self.validation * len(order)))
            held_out, order = train.select(order[:count]), order[count:]
        self._train_places = order[: self.train_samples]
        train = train.select(self._train_places)
        for name, part in (("training", train), ("validation", held_out), ("test", test)):
            if not len(part.labels):
                raise InputError(f"{type(self).__name__} has no {name} images")
        self._splits = {"train": train, "validation": held_out, "test": test}

    def split(self, name: Literal["train", "validation", "test"]) -> ImageSet:
        """Return the images of a split, after ``setup``."""
        return self._splits[name]

    def identity(self) -> dict[str, Any]:
        """Return what identifies the data of a run: sizes and checksums of the splits."""
        return {name: {"images": len(part.labels), "sha256": part.checksum()} for name, part in self._splits.items()}

    @property
    def recognised(self) -> Recognised | None:
        """Which known dataset the images are, where only their content can tell."""
        return None

    def training_images(self, loader: EpochLoader, number: int) -> torch.Tensor:
        """Return the places, in the official training set, of the images in a batch of the loader's present epoch."""
        return self._train_places[loader.sampler.batches()[number // loader.replays]]

    def train_dataloader(self) -> EpochLoader:
        """Return shuffled training batches."""
        return self._loader("train", self.batch_size, train=True)

    def val_dataloader(self) -> EpochLoader:
        """Return validation batches, in order."""
        return self._loader("validation", self.eval_batch_size or self.batch_size, train=False)

    def test_dataloader(self) -> EpochLoader:
        """Return test batches, in order."""
        return self._loader("test", self.eval_batch_size or self.batch_size, train=False)

    def predict_dataloader(self) -> EpochLoader:
        """Return test batches, in order."""
        return self.test_dataloader()

    def on_after_batch_transfer(self, batch: RawBatch | SpikeBatch, dataloader_idx: int) -> SpikeBatch:
        """Flip and encode, on the device."""
        if isinstance(batch, SpikeBatch):
            return batch
        images = batch.images
        if self.flip:
            # One decision an image: torchvision's transform would take one for the whole batch.
            images = torch.where(batch.flip.view(-1, 1, 1, 1), images.flip(-1), images)
        if self.crop:
            images = shifted(images, batch.shift)
        generator = stream(batch.seed) if self.spike_encoder.stochastic else None
        return SpikeBatch(self.spike_encoder.to(images.device)(images, generator), batch.labels, images)

    def _loader(self, split: str, batch_size: int, train: bool) -> EpochLoader:
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        # What the batches of training are replayed for is the objective's business.
        objective = getattr(getattr(self.trainer, "lightning_module", None), "objective", None)
        replays = getattr(objective, "replays", 1) if train else 1
        same = train and bool(getattr(self.trainer, "overfit_batches", 0))
        images = self._splits[split]
        device = self.trainer.strategy.root_device if self.trainer else images.labels.device
        if images.labels.device != device:
            # A split goes to the device that trains once, and batches are gathered there.
            images = self._splits_on_device.setdefault((split, device), ImageSet(*(part.to(device) for part in images)))
        return EpochLoader(images, batch_size, self.seed, train, rank, world_size, self.crop, replays, same)


def shifted(images: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Return each image moved down and to the right by its own number of pixels; what comes in is 0.

    Args:
        images: [N,C,H,W].
        shift: [N,2] int64.

    Example:
        >>> shifted(torch.tensor([[[[1, 2], [3, 4]]]]), torch.tensor([[1, -1]])).tolist()
        [[[[0, 0], [2, 0]]]]
    """
    height, width = images.shape[-2:]
    rows = torch.arange(height, device=images.device) - shift[:, :1]
    columns = torch.arange(width, device=images.device) - shift[:, 1:]
    inside = ((rows >= 0) & (rows < height)).unsqueeze(2) & ((columns >= 0) & (columns < width)).unsqueeze(1)
    first = torch.arange(len(images), device=images.device).view(-1, 1, 1)
    moved = images[first, :, rows.clamp(0, height - 1).unsqueeze(2), columns.clamp(0, width - 1).unsqueeze(1)]
    return moved.movedim(-1, 1) * inside.unsqueeze(1).to(images.dtype)

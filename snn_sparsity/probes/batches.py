"""What probes see of a batch, whatever a dataloader gives."""

from math import ceil
from typing import Any

import torch
from lightning import Trainer
from torch import Tensor
from torch.utils.data import DistributedSampler

from snn_sparsity.batch import SpikeBatch
from snn_sparsity.validation import InputError


def spike_batch(batch: Any) -> SpikeBatch:
    """Return a batch as probes see it; plain images are one time step.

    Args:
        batch: A SpikeBatch, or images (float, [N,...]) and labels (int64, [N]).

    Raises:
        InputError: For anything else.

    Example:
        >>> spike_batch([torch.zeros(2, 3, 8, 8), torch.tensor([0, 1])]).spikes.shape
        torch.Size([1, 2, 3, 8, 8])
    """
    if isinstance(batch, SpikeBatch):
        return batch
    if not (isinstance(batch, list | tuple) and len(batch) == 2 and all(isinstance(part, Tensor) for part in batch)):
        raise InputError(f"a batch is a {type(batch).__name__}; give a pair of tensors: images [N,...] and labels [N]")
    images, labels = batch
    if not images.is_floating_point() or labels.dtype != torch.long or labels.shape != images.shape[:1]:
        raise InputError(
            f"images are {images.dtype} {list(images.shape)}, labels {labels.dtype} {list(labels.shape)}; give images [N,...] of floats, "
            "which have gradients, and labels [N] of int64"
        )
    pixels = (images.clamp(0, 1) * 255).round().to(torch.uint8)
    return SpikeBatch(images.float().unsqueeze(0), labels, pixels)


def without_repeats(trainer: Trainer, batch: SpikeBatch, batch_idx: int) -> SpikeBatch:
    """Return a batch without the images that a DistributedSampler gives twice, so that all processes have as many."""
    loader = loader_of(trainer)
    sampler = getattr(loader, "sampler", None)
    if not isinstance(sampler, DistributedSampler):
        return batch
    mine = ceil((len(sampler.dataset) - sampler.rank) / sampler.num_replicas)  # type: ignore[arg-type]  # it asks for a length, too
    return batch.first(max(0, min(len(batch.labels), mine - batch_idx * loader.batch_size)))


def loader_of(trainer: Trainer) -> Any:
    """Return the (first) loader of this evaluation."""
    loaders: Any = trainer.test_dataloaders if trainer.testing else trainer.val_dataloaders
    return loaders[0] if isinstance(loaders, list | tuple) else loaders

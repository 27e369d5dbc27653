"""How much memory a training step takes, known before it starts."""

import re
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from snn_sparsity.networks.modes import evaluating
from snn_sparsity.validation import InputError

COPIES = 4
"""Of each weight: itself, its gradient and Adam's two moments."""
FEW_STEPS = 4
"""Time steps that are enough to tell what one of them keeps."""
CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


class EnoughMemory(Callback):
    """Refuse a fit whose network does not take its images, or whose steps memory cannot hold, before anything is trained."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Try two black images of the datamodule's size.

        Raises:
            InputError: Saying what does not fit, or how much memory it takes.
        """
        if stage != "fit":
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]  # it has one, as every run of the command line
        size = data.split("train").images.shape[1:]
        spikes = data.spike_encoder(torch.zeros(2, *size, dtype=torch.uint8), torch.Generator())
        try:
            needed = step_bytes(pl_module, spikes, data.batch_size)
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            raise InputError(f"the network does not take the spikes of two images {list(size)}, {list(spikes.shape)}: {reason}") from error
        if "16" in trainer.precision:
            needed //= 2  # at most: some of what is kept stays in float32
        device = trainer.strategy.root_device
        processes = trainer.num_devices if device.type == "cpu" else 1
        require_memory(processes * needed, device, f"a training step of {data.batch_size} images with {len(spikes)} time steps")


def step_bytes(classifier: nn.Module, spikes: Tensor, batch_size: int) -> int:
    """Return the least memory that training with Adam takes: weights, and what the forward pass keeps for the backward pass.

    Args:
        classifier: Maps spikes to logits; not changed.
        spikes: [T,2,C,H,W], two images.
        batch_size: Images a step.

    Returns:
        Bytes. The peak is higher by the largest gradients of activations.

    Example:
        A linear layer keeps its input, of 8 bytes an image, and needs its 2 weights four times.

        >>> step_bytes(nn.Linear(2, 1, bias=False), torch.ones(1, 2, 2), batch_size=10)
        112
    """
    weights = sum(parameter.untyped_storage().nbytes() for parameter in classifier.parameters())
    some = spikes[:FEW_STEPS]
    # A second image tells what is kept for each from what is kept once.
    threads = torch.get_num_threads()
    # In a network's first steps on an image or two, several threads cost seconds of waiting for each other.
    torch.set_num_threads(1)
    try:
        one, two = (_kept_bytes(classifier, some[:, :images]) for images in (1, 2))
    finally:
        torch.set_num_threads(threads)
    each = (two - one) * len(spikes) // len(some)
    return COPIES * weights + max(0, 2 * one - two) + batch_size * each


def _kept_bytes(classifier: nn.Module, spikes: Tensor) -> int:
    """Return what a forward pass keeps besides the weights."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in classifier.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with evaluating(classifier), torch.enable_grad(), saved_tensors_hooks(keep, lambda tensor: tensor):
        # While it lives, nothing that it keeps is freed and counted again.
        alive = classifier(spikes.clone())
    del alive
    return sum(kept.values())


def require_memory(needed: int, device: torch.device, what: str) -> None:
    """Raise InputError if a device has clearly less free memory than is needed for ``what``; say how much it would take."""
    free = free_bytes(device)
    if free is not None and needed > free:
        raise InputError(
            f"{what} needs at least {needed / 2**30:.1f} GiB of memory, and {free / 2**30:.1f} GiB are free on {device}: give a smaller "
            "--data.batch_size (with --trainer.accumulate_grad_batches for the same steps) or fewer time steps (--data.encoder.num_steps)"
        )


def free_bytes(device: torch.device) -> int | None:
    """Return the free memory of a device, on the CPU within the container's limit; None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        available = re.search(r"MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text())
    except OSError:
        return None
    limits = [path.read_text().strip() for path in map(Path, CONTAINER_LIMITS) if path.is_file()]
    known = [int(limit) for limit in limits if limit.isdecimal()] + ([1024 * int(available[1])] if available else [])
    return min(known, default=None)

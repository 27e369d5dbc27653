"""The work that both sides do: sizes, images, attacks."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from snn_sparsity.data.digits import DigitsDataModule
from snn_sparsity.measure.reachability import reachability

EPS, STEP_LENGTH, STEPS = 8 / 255, 0.01, 7
WORN = 4.8e-40
"""Where Adam with L2 decay 1e-3 takes a weight of no gradient within the 3,125 steps of the paper's first epoch (float32, denormal)."""

PAPER_TRAIN, PAPER_TEST = 50_000, 10_000


@dataclass(frozen=True)
class Work:
    """How much is done.

    Attributes:
        device: ``cpu`` or ``cuda``.
        batches: Batch sizes of training steps; the first is the paper's.
        attack_batch: Images attacked and evaluated at a time.
        pipeline_images: Images read and encoded.
        scale: The epoch has the paper's 50,000 and 10,000 images divided by this.
        depth: Of the SEW-ResNet.
        time_steps: T.
        pictures: What the images are: ``random`` pixels, or handwritten ``digits``.
    """

    device: str = "cpu"
    batches: tuple[int, ...] = (16, 64)
    attack_batch: int = 100
    pipeline_images: int = 1000
    scale: int = 800
    depth: int = 18
    time_steps: int = 10
    pictures: Literal["random", "digits"] = "random"

    @property
    def epoch_train(self) -> int:
        """Training images of the scaled epoch."""
        return PAPER_TRAIN // self.scale

    @property
    def epoch_test(self) -> int:
        """Test images of the scaled epoch."""
        return PAPER_TEST // self.scale

    def images(self, count: int) -> tuple[Tensor, Tensor]:
        """Return images [count,3,32,32] uint8 and labels, the same on all sides."""
        if self.pictures == "digits":
            digits = DigitsDataModule().load().train.select(torch.arange(count))
            return digits.images, digits.labels
        generator = torch.Generator().manual_seed(count)
        images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
        return images, torch.randint(0, 10, (count,), generator=generator)


def wear(network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Give weights that no image reaches, and their moments, the values that L2 decay gives them in an epoch."""
    modules = dict(network.named_modules())
    with torch.no_grad():
        for path, reachable in reachability(network).items():
            weight = modules[path].weight
            assert isinstance(weight, nn.Parameter)
            for tensor in (weight, optimizer.state[weight]["exp_avg"]):
                tensor[~reachable.to(tensor.device)] = WORN

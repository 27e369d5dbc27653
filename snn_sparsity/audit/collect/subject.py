"""What is audited: a trained classifier, its code, and a fixed set of images."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from snn_sparsity.attacks.targets import ImageTarget, SpikeTarget
from snn_sparsity.encoders.base import Encoder
from snn_sparsity.networks.modes import device_of
from snn_sparsity.randomness import mix

JUDGE_DRAWS = 10
"""Passes whose mean decides about an image of a random network."""


@dataclass(frozen=True)
class Subject:
    """A classifier and the images it is audited on.

    Args:
        classifier: Maps spikes [T,N,C,H,W] to logits [N,K] and resets its neurons itself.
        encoder: Its spike code.
        images: [n,C,H,W] uint8.
        labels: [n] int64.
        num_classes: K.
        batch_size: Images attacked at a time.
        seed: Seed of all random numbers of the audit.
        random: Whether the network or its code gives other logits at each call.
    """

    classifier: nn.Module
    encoder: Encoder
    images: Tensor
    labels: Tensor
    num_classes: int
    batch_size: int
    seed: int
    random: bool = False

    @property
    def device(self) -> torch.device:
        """Where the classifier is."""
        return device_of(self.classifier)

    def generator(self, *key: int) -> torch.Generator:
        """Return random numbers for a purpose: the same whenever the audit is stopped and gone on with."""
        return torch.Generator().manual_seed(mix(self.seed, *key))

    def batches(self, places: list[int]) -> list[list[int]]:
        """Return the places of images, a batch at a time."""
        return [places[start : start + self.batch_size] for start in range(0, len(places), self.batch_size)]

    def judge(self, target: SpikeTarget | ImageTarget, x: Tensor) -> Tensor:
        """Return the logits [N,K] that decide; of a random network, the mean over several draws."""
        return torch.stack([target.judge(x) for _ in range(JUDGE_DRAWS if self.random else 1)]).mean(0)

    def select(self, places: list[int]) -> tuple[Tensor, Tensor]:
        """Return images [N,C,H,W] uint8 and labels [N], on the classifier's device."""
        return self.images[places].to(self.device), self.labels[places].to(self.device)

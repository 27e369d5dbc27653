"""What is audited: a trained classifier, its code, and a fixed set of images."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from snn_sparsity.attacks.targets import ImageTarget, SpikeTarget
from snn_sparsity.encoders.base import Encoder
from snn_sparsity.protocols import PAPER, STRICT, Protocol
from snn_sparsity.randomness import mix

JUDGE_DRAWS = 10
"""Passes whose mean decides about an image of a random network."""


PROTOCOLS = {"image": STRICT, "spikes": Protocol("spikes", "eval"), "paper": PAPER}
CHANGED = {
    "image": "pixels, the same change at every time step; BatchNorm in eval mode",
    "spikes": "encoded spikes, by real numbers, each time step by itself; BatchNorm in eval mode",
    "paper": "encoded spikes; BatchNorm takes the batch's statistics while the attack is crafted",
}
"""What is changed under each protocol, in words."""


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
        return next((parameter.device for parameter in self.classifier.parameters()), torch.device("cpu"))

    def generator(self, *key: int) -> torch.Generator:
        """Return random numbers for a purpose: the same whenever the audit is stopped and gone on with."""
        return torch.Generator().manual_seed(mix(self.seed, *key))

    def batches(self, places: list[int]) -> list[list[int]]:
        """Return the places of images, a batch at a time."""
        return [places[start : start + self.batch_size] for start in range(0, len(places), self.batch_size)]

    def target(self, protocol: Protocol, generator: torch.Generator) -> SpikeTarget | ImageTarget:
        """Return what an attack sees; a stochastic code draws from the generator."""
        if protocol.space == "spikes":
            return SpikeTarget(self.classifier, protocol.batch_norm)
        return ImageTarget(self.classifier, self.encoder, protocol.batch_norm, generator)

    def judge(self, target: SpikeTarget | ImageTarget, x: Tensor) -> Tensor:
        """Return the logits [N,K] that decide; of a random network, the mean over several draws."""
        return torch.stack([target.judge(x) for _ in range(JUDGE_DRAWS if self.random else 1)]).mean(0)

    def inputs(self, protocol: Protocol, places: list[int], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the clean inputs of a protocol's target, [N,C,H,W] or [N,T,C,H,W], and their labels."""
        images, labels = self.images[places].to(self.device), self.labels[places].to(self.device)
        if protocol.space == "image":
            return images.float() / 255, labels
        return self.encoder(images, generator).transpose(0, 1).contiguous(), labels

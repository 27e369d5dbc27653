"""What is audited: a trained classifier, its code, and a fixed set of images."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from snn_sparsity.attacks.targets import ImageTarget, SpikeTarget
from snn_sparsity.encoders.base import Encoder
from snn_sparsity.networks.modes import device_of
from snn_sparsity.randomness import mix

JUDGE_DRAWS = 10
"""Passes whose mean decides about an image of a random network."""
JUDGED, CODED = 30, 31
"""Purposes of random numbers that depend on the image alone."""


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

    @contextmanager
    def drawing(self, *key: int) -> Iterator[None]:
        """Let PyTorch's own random numbers be those of a purpose while the block runs, and what they were afterwards."""
        on_gpu, seed = self.device.type == "cuda", self.generator(*key).initial_seed()
        with torch.random.fork_rng([self.device] if on_gpu else []):
            torch.default_generator.manual_seed(seed)
            if on_gpu:
                torch.cuda.manual_seed(seed)
            yield

    def batches(self, places: list[int]) -> list[list[int]]:
        """Return the places of images, a batch at a time."""
        return [places[start : start + self.batch_size] for start in range(0, len(places), self.batch_size)]

    def judge(self, target: SpikeTarget | ImageTarget, x: Tensor, places: list[int]) -> Tensor:
        """Return the logits [N,K] that decide about the images at these places; of a random network, the mean over several draws.

        An image's draws are the same whenever it is judged, without an attack too: else each attack would be another draw of a lottery, in
        which an image at the boundary loses sooner or later.
        """
        if not self.random:
            return target.judge(x)
        # One image after the other: what a network draws for it must not hang on those beside it.
        own: Any = copy(target)
        means = []
        for place, image in zip(places, x.split(1), strict=True):
            own.generator = self.generator(JUDGED, place)
            with self.drawing(JUDGED, place):
                means.append(torch.stack([own.judge(image) for _ in range(JUDGE_DRAWS)]).mean(0))
        return torch.cat(means)

    def encode(self, places: list[int]) -> Tensor:
        """Return the spikes [N,T,C,H,W] of the images at these places: of a random code, always the same draw of each."""
        images, _ = self.select(places)
        if not self.encoder.stochastic:
            return self.encoder(images).transpose(0, 1).contiguous()
        drawn = [self.encoder(one, self.generator(CODED, place)) for place, one in zip(places, images.split(1), strict=True)]
        return torch.cat(drawn, 1).transpose(0, 1).contiguous()

    def select(self, places: list[int]) -> tuple[Tensor, Tensor]:
        """Return images [N,C,H,W] uint8 and labels [N], on the classifier's device."""
        return self.images[places].to(self.device), self.labels[places].to(self.device)

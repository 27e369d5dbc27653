"""What everything is measured against: a plain SpikingJelly loop, written from the paper's description (arXiv 2509.23762).

Images come one by one through a DataLoader, neurons and convolutions are the library's, Adam is PyTorch's default, and attacks call
``loss.backward()``, which also computes the gradients of all weights.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from spikingjelly.activation_based import encoding, functional, neuron, surrogate
from spikingjelly.activation_based.model import sew_resnet
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.work import EPS, STEP_LENGTH, STEPS, Work, wear

BITS = 8
Arm = Callable[[], float | None]


class Images(Dataset[tuple[Tensor, int]]):
    """Decoded, flipped and scaled one at a time."""

    def __init__(self, images: Tensor, labels: Tensor, train: bool) -> None:
        flip = [transforms.RandomHorizontalFlip()] if train else []
        self.transform = transforms.Compose([transforms.ToPILImage(), *flip, transforms.PILToTensor()])
        self.images: list[np.ndarray] = [image.permute(1, 2, 0).numpy() for image in images]
        self.labels: list[int] = labels.tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        # Grey level 255 is 255/256: the encoder refuses 1.
        return self.transform(self.images[index]).float() / 2**BITS, self.labels[index]


class Loop:
    """Train, evaluate and attack SEW-ResNet18 at the sizes of some work."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.encoder = encoding.WeightedPhaseEncoder(BITS)
        torch.manual_seed(0)
        builder = {18: sew_resnet.sew_resnet18, 34: sew_resnet.sew_resnet34}[work.depth]
        node = {"spiking_neuron": self.spiking_neuron, "surrogate_function": surrogate.ATan(), "detach_reset": True}
        self.network: nn.Module = builder(num_classes=10, cnf="ADD", **node)
        functional.set_step_mode(self.network, "m")
        self.network.to(work.device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-3, weight_decay=1e-3)

    @staticmethod
    def spiking_neuron(**settings: Any) -> nn.Module:
        """Return a layer of neurons."""
        return neuron.IFNode(**settings)

    def arms(self) -> dict[str, Arm]:
        """Return what is timed."""
        attacked = self._batch(self.work.attack_batch)
        steps = {f"training step, batch {size}": partial(self.train_step, *self._batch(size)) for size in self.work.batches}
        return {
            "input pipeline": partial(self.read, self.work.pipeline_images),
            **steps,
            "clean evaluation": partial(self.evaluate, *attacked),
            "FGSM + PGD-7": partial(self.attack, *attacked),
            "epoch": self.epoch,
        }

    def wear(self) -> None:
        """Bring weights and optimiser to where L2 decay takes them in an epoch."""
        self.train_step(*self._batch(self.work.batches[0]))
        wear(self.network, self.optimizer)

    def forward(self, spikes: Tensor) -> Tensor:
        """Return logits."""
        functional.reset_net(self.network)
        return self.network(spikes).mean(0)

    def encode(self, images: Tensor) -> Tensor:
        """Return the phase code."""
        self.encoder.reset()
        return torch.stack([self.encoder(images) for _ in range(self.work.time_steps)])

    def train_step(self, spikes: Tensor, labels: Tensor) -> None:
        """Train on a batch, and look at the loss."""
        self.network.train()
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.forward(spikes), labels)
        loss.backward()
        self.optimizer.step()
        loss.item()

    def evaluate(self, spikes: Tensor, labels: Tensor) -> None:
        """Count correct predictions."""
        self.network.eval()
        with torch.no_grad():
            (self.forward(spikes).argmax(1) == labels).sum().item()

    def attack(self, spikes: Tensor, labels: Tensor) -> None:
        """Attack with FGSM and with PGD-7, and judge both."""
        fgsm = self._ascend(spikes, spikes, labels, EPS, steps=1)
        start = (spikes + torch.empty_like(spikes).uniform_(-EPS, EPS)).clamp(0, 1)
        pgd = self._ascend(spikes, start, labels, STEP_LENGTH, STEPS)
        self.evaluate(fgsm, labels)
        self.evaluate(pgd, labels)

    def _ascend(self, spikes: Tensor, start: Tensor, labels: Tensor, length: float, steps: int) -> Tensor:
        self.network.train()
        x = start
        for _ in range(steps):
            x = x.detach().requires_grad_()
            self.network.zero_grad()
            F.cross_entropy(self.forward(x), labels).backward()
            assert x.grad is not None
            x = spikes + (x + length * x.grad.sign() - spikes).clamp(-EPS, EPS)
            x = x.clamp(0, 1)
        return x.detach()

    def epoch(self) -> None:
        """Train on all images, then evaluate and attack the test images."""
        for spikes, labels in self._batches(self.work.epoch_train, train=True):
            self.train_step(spikes, labels)
        for spikes, labels in self._batches(self.work.epoch_test, train=False):
            self.evaluate(spikes, labels)
            self.attack(spikes, labels)

    def read(self, count: int) -> None:
        """Load and encode images."""
        for _ in self._batches(count, train=True):
            pass

    def _batches(self, count: int, train: bool) -> Iterator[tuple[Tensor, Tensor]]:
        device = self.work.device
        for images, labels in DataLoader(Images(*self.work.images(count), train), batch_size=self.work.batches[0], shuffle=train):
            yield self.encode(images.to(device)), labels.to(device)

    def _batch(self, size: int) -> tuple[Tensor, Tensor]:
        images, labels = self.work.images(size)
        device = self.work.device
        return self.encode(images.to(device).float() / 2**BITS), labels.to(device)

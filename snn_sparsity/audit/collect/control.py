"""Check V14: the same attacks on a network that is known to fall."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snn_sparsity.attacks.base import Attack
from snn_sparsity.audit.collect.attacking import attack_batch
from snn_sparsity.audit.collect.subject import Subject
from snn_sparsity.audit.collect.threat_models import ThreatModel
from snn_sparsity.encoders.base import Encoder

STEPS, BATCH = 200, 64


class PlainConvNet(nn.Module):
    """Two convolutions and a read-out, without spikes, on all time steps at once: [T,N,C,H,W] to [N,K]."""

    def __init__(self, num_steps: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(num_steps * channels, 32, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(1024, num_classes),
        )  # fmt: skip

    def forward(self, spikes: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.layers(spikes.transpose(0, 1).flatten(1, 2))
        return logits


def control(subject: Subject, protocol: ThreatModel, attacks: list[Attack], reference: nn.Module) -> dict[str, Any]:
    """Return what the attacks leave of a plain convolutional network behind the same code: it should be nothing.

    Args:
        subject: What is audited.
        protocol: Space of the attacks.
        attacks: The attacks; an image counts as broken when one of them breaks it.
        reference: From ``trained_reference``.

    Returns:
        ``clean``, ``accuracy`` (the worst case by image) and ``what``.
    """
    twin = Subject(reference, subject.encoder, subject.images, subject.labels, subject.num_classes, subject.batch_size, subject.seed)
    places = list(range(len(subject.labels)))
    with torch.no_grad():
        right = []
        for batch in subject.batches(places):
            spikes = subject.encoder(subject.images[batch].to(subject.device), subject.generator(14))
            right += [
                place
                for place, hit in zip(batch, (reference(spikes).argmax(1).cpu() == subject.labels[batch]).tolist(), strict=True)
                if hit
            ]
    clean = len(right) / max(len(places), 1)
    for number, attack in enumerate(attacks):
        records = [attack_batch(twin, protocol, attack, batch, (14, number, index)) for index, batch in enumerate(subject.batches(right))]
        right = [
            place for record in records for place, broken in zip(record["places"], record.get("fooled", []), strict=True) if not broken
        ]
    return {
        "clean": clean,
        "accuracy": len(right) / max(len(places), 1),
        "what": "plain convolutional network behind the same code",
    }


def trained_reference(subject: Subject, images: Tensor, labels: Tensor) -> nn.Module:
    """Return a plain network trained behind the subject's code, a function of the audit's seed alone.

    Args:
        subject: What is audited.
        images: [n,C,H,W] uint8, for training.
        labels: [n] int64.
    """
    encoder: Encoder = subject.encoder
    with torch.random.fork_rng([subject.device] if subject.device.type == "cuda" else []), torch.enable_grad():
        torch.manual_seed(subject.generator(14).initial_seed())
        network = PlainConvNet(encoder.num_steps, images.shape[1], subject.num_classes).to(subject.device)
        optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
        generator = subject.generator(14, 1)
        for _ in range(STEPS):
            chosen = torch.randint(len(labels), (BATCH,), generator=generator)
            spikes = encoder(images[chosen].to(subject.device), generator)
            loss = F.cross_entropy(network(spikes), labels[chosen].to(subject.device))
            gradients = torch.autograd.grad(loss, list(network.parameters()))
            for parameter, gradient in zip(network.parameters(), gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
    return network.eval()

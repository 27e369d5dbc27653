"""Check V15: does the attack find adversarial examples that are known to be there?"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from snn_sparsity.attacks.base import Attack
from snn_sparsity.audit.collect.attacking import attack_batch
from snn_sparsity.audit.collect.subject import Subject
from snn_sparsity.audit.collect.threat_models import ThreatModel
from snn_sparsity.measure.operations import operations

INNER = 999
POINTS = INNER + 1
INNER_RADIUS = 0.95
CLOSENESS = 0.999
"""How far from the outermost inner point to the planted one the threshold lies."""


class ReadOut(NamedTuple):
    """Two classes by one score of the features: 1 above the threshold, 0 below.

    Attributes:
        weights: [F].
        threshold: Of ``weights . features``.
    """

    weights: Tensor
    threshold: float


class Features(nn.Module):
    """A classifier without its last linear layer: spikes [T,N,C,H,W] to what enters that layer, averaged over time, [N,F].

    Raises:
        InputError: If the classifier has no linear layer.
    """

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.last = operations(classifier, ["linear"])[-1].module
        self.classifier = classifier

    def forward(self, spikes: Tensor) -> Tensor:
        """Return the features."""
        seen: list[Tensor] = []
        handle = self.last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            self.classifier(spikes)
        finally:
            handle.remove()
        return seen[-1].mean(0) if seen[-1].ndim == 3 else seen[-1]


class PlantedNetwork(Features):
    """A classifier whose last linear layer is replaced by a read-out of two classes; all before it stays as it is."""

    def __init__(self, classifier: nn.Module, read_out: ReadOut) -> None:
        super().__init__(classifier)
        self.read_out = read_out

    def forward(self, spikes: Tensor) -> Tensor:
        """Return the logits [N,2]."""
        score = super().forward(spikes) @ self.read_out.weights - self.read_out.threshold
        return torch.stack([-score, score], 1)


def planted(subject: Subject, protocol: ThreatModel, place: int, attacks: dict[str, Attack]) -> dict[str, bool] | None:
    """Plant one adversarial example at the rim of an image's ball, and let attacks look for it.

    999 points inside 0.95 eps (the image among them) are class 0, one corner of the ball is class 1: a linear read-out of the frozen
    features tells them apart, with its threshold just below the corner's score. The binarisation test of Zimmermann et al.
    (arXiv 2206.13991), image by image.

    Args:
        subject: What is audited.
        protocol: Space of the attacks.
        place: Of the image.
        attacks: By name; their eps is the ball's.

    Returns:
        Of each attack whether it reached class 1; None if no read-out of these features tells the corner from the inside.
    """
    generator = subject.generator(15, place)
    x, _ = protocol.inputs(subject, [place])
    eps = max(attack.eps for attack in attacks.values())
    inner = torch.cat([x, protocol.inside(x.expand(INNER - 1, *x.shape[1:]), INNER_RADIUS * eps, generator)])
    corner = protocol.corner(x, eps, generator)
    read_out = separate(_features_at(subject, protocol, inner), _features_at(subject, protocol, corner)[0])
    if read_out is None:
        return None
    twin = replace(
        subject,
        classifier=PlantedNetwork(subject.classifier, read_out),
        images=subject.images[place : place + 1],
        labels=torch.zeros(1, dtype=torch.long),
        num_classes=2,
    )
    found = {}
    for number, (name, attack) in enumerate(attacks.items()):
        record = attack_batch(twin, protocol, attack, [0], (15, place, number))
        if record["status"] != "done":
            raise RuntimeError(f"{name}: {record['why']}")
        found[name] = bool(record["fooled"][0])
    return found


def separate(inner: Tensor, corner: Tensor) -> ReadOut | None:
    """Return a read-out that puts the inner points [n,F] into class 0 and the corner [F] into class 1; None if there is none.

    Logistic regression with both classes weighing the same; then the threshold is moved up to 0.999 of the way from the largest inner score
    to the corner's.

    Example:
        >>> read_out = separate(torch.tensor([[0.0], [1.0], [0.5]]), torch.tensor([3.0]))
        >>> round(read_out.threshold / read_out.weights.item(), 3)
        2.998
    """
    from sklearn.linear_model import LogisticRegression

    points = torch.cat([inner, corner.unsqueeze(0)]).double().cpu()
    scale = points.std(0)
    used = scale > 0
    if not used.any():
        return None
    standard = ((points - points.mean(0))[:, used] / scale[used]).numpy()
    labels = np.arange(len(points)) == len(inner)
    fitted: NDArray[np.float64] = LogisticRegression(class_weight="balanced", C=1e3, max_iter=1000).fit(standard, labels).coef_[0]
    weights = torch.zeros(points.shape[1], dtype=torch.float64)
    weights[used] = torch.from_numpy(fitted) / scale[used]
    weights = (weights / weights.norm()).to(inner)
    # Scores as the attacked network will compute them.
    largest, planted_at = (inner @ weights).max().item(), (corner @ weights).item()
    if planted_at <= largest:
        return None
    return ReadOut(weights, largest + CLOSENESS * (planted_at - largest))


def _features_at(subject: Subject, protocol: ThreatModel, x: Tensor) -> Tensor:
    """Return the features [n,F] of inputs [n,...] of a protocol's target."""
    target = protocol.target(replace(subject, classifier=Features(subject.classifier)), subject.generator(15))
    return torch.cat([target.judge(part) for part in x.split(subject.batch_size)])

"""What is true of a network of the bench: measured by an attacker who knows what hides the gradient, far longer than an audit."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from benchmarks.audit_bench.data import SEED, Digits
from benchmarks.audit_bench.zoo import EPS, Built, Kind
from snn_sparsity.attacks import APGD, EOT, PGD, CodeBookAscent, Square
from snn_sparsity.attacks.base import Attack, input_gradient
from snn_sparsity.attacks.metering import Meter, Metered
from snn_sparsity.attacks.targets import ImageTarget
from snn_sparsity.audit.collect.adapter import Adapted
from snn_sparsity.audit.collect.battery import quoted, step_length
from snn_sparsity.audit.collect.subject import Subject
from snn_sparsity.audit.judge.answers import Belief
from snn_sparsity.encoders import DirectEncoder, PhaseEncoder

HIDDEN = (0.02, 0.05)
"""Up to the first share of images nothing is hidden, from the second on a network is masked; between them, no answer is held wrong."""
WEAK = (0.04, 0.08)
"""The same for the quoted attack. Published PGD numbers of adversarially trained networks are mostly 1 to 4 points above AutoAttack's
(Croce and Hein, arXiv 2003.01690, table 2), and nobody calls them weak for that."""
LONG = "long"
STEPS = {"short": 10, LONG: 50}
"""Steps of a gradient attack, by effort: that of a quick audit, and one far beyond."""
QUERIES, DRAWS = 300, 5
Fault = Literal["masked", "weak", "not valid", "none", "between"]


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What is true of a network on the audited images: how many are right, under whom.

    Attributes:
        meant: What it was built to be.
        images: How many there are.
        clean: Without an attack.
        quoted: Under the quoted attack.
        native: By effort, under the network's own gradient.
        knowing: By effort, under an attacker who knows what hides the gradient, after one round of the native attack and at its cost.
        left: Under all of these.
        certified: Whatever the attack, computed exactly; None where that cannot be done.
    """

    meant: str
    images: int
    clean: int
    quoted: int
    native: dict[str, int]
    knowing: dict[str, int]
    left: int
    certified: int | None = None

    @property
    def hidden(self) -> float:
        """What the network's own gradient does not find at the same effort, as a share of the images; the larger of both efforts."""
        return max(self.native[effort] - self.knowing[effort] for effort in self.native) / self.images

    @property
    def weakness(self) -> float:
        """What the quoted attack does not find although the network's own gradient does, as a share of the images."""
        return (self.quoted - self.native[LONG]) / self.images

    @property
    def fault(self) -> Fault:
        """The worst of its faults."""
        if self.meant == "not valid":
            return "not valid"
        if self.hidden >= HIDDEN[1]:
            return "masked"
        if self.hidden <= HIDDEN[0] and self.weakness >= WEAK[1]:
            return "weak"
        return "none" if self.hidden <= HIDDEN[0] and self.weakness <= WEAK[0] else "between"

    @property
    def accepted(self) -> set[Belief]:
        """The answers that are right about it."""
        right: dict[Fault, set[Belief]] = {
            "masked": {"MASKED"},
            "weak": {"WEAK ATTACK"},
            "not valid": {"NOT VALID"},
            "none": {"NO SIGN OF MASKING"},
            "between": {"NO SIGN OF MASKING", "WEAK ATTACK"} | ({"MASKED"} if self.hidden > HIDDEN[0] else set()),
        }
        return right[self.fault]

    @property
    def honest(self) -> bool:
        """Whether nothing hides and the measurement is sound: whatever else is true of it, to call it masked or not valid is false."""
        return self.fault in ("none", "weak") or (self.fault == "between" and self.hidden <= HIDDEN[0])


def measure(kind: Kind, built: Built, images: Digits) -> Truth:
    """Return what is true of a trained network on these images."""
    hunt = _Hunt(built, images)
    clean = hunt.right(images.pixels, torch.arange(len(images.labels)))
    quoted_left = hunt.left(built.model, [kind.claim or quoted(EPS)], clean)
    # Where cross-entropy has no gradient at all, a loss that no scale changes is already an attacker's knowledge.
    flat = hunt.flat(clean)
    native, knowing, left = {}, {}, quoted_left
    for effort, steps in STEPS.items():
        attackers = built.twins or [built.model]
        ours = hunt.attacks(steps, repeated=DRAWS if built.random else 1)
        first = hunt.left(built.model, ours, clean, flat)
        again = hunt.left(built.model, ours * len(attackers), first, flat)
        known = first
        for network in attackers:
            known = hunt.left(network, hunt.attacks(steps, averaged=built.random), known)
        if effort == LONG:
            again = hunt.left(built.model, ours, again, flat)
            known = hunt.left(built.model, [Square(eps=EPS, queries=QUERIES)], known)
        native[effort], knowing[effort] = len(again), len(known)
        left = left[torch.isin(left, again) & torch.isin(left, known)]
    certified = None if built.certified is None else int(built.certified(images).sum())
    return Truth(
        meant=kind.meant, images=len(images.labels), clean=len(clean), quoted=len(quoted_left), native=native, knowing=knowing,
        left=len(left), certified=certified,
    )  # fmt: skip


@dataclass
class _Hunt:
    """Attacks, one after another, on the images that are left.

    Args:
        built: What is judged.
        images: All of them.
        asked: Attacks so far, which seeds the next one.
    """

    built: Built
    images: Digits
    asked: int = 0

    def __post_init__(self) -> None:
        encoder, classes = self.built.encoder or DirectEncoder(num_steps=1), int(self.images.labels.max()) + 1
        self.subject = Subject(self.built.model, encoder, *self.images, classes, len(self.images.labels), SEED, self.built.random)

    def attacks(self, steps: int, repeated: int = 1, averaged: bool = False) -> list[Attack]:
        """Return one round of attacks: each loss once, or as often as averaging would cost."""
        if isinstance(self.built.encoder, PhaseEncoder):
            found: list[Attack] = [CodeBookAscent(eps=EPS, steps=steps, loss=loss, random_start=True) for loss in ("ce", "margin")]
        else:
            found = [
                APGD(eps=EPS, steps=steps, loss="ce"),
                APGD(eps=EPS, steps=steps, loss="dlr"),
                PGD(eps=EPS, steps=steps, alpha=step_length(EPS, steps), loss="margin"),
            ]
        return [EOT(one, draws=DRAWS, eps=EPS) for one in found] if averaged else found * repeated

    def left(self, network: nn.Module, attacks: list[Attack], places: Tensor, flat: Tensor | None = None) -> Tensor:
        """Return which images no attack on a network breaks for what is judged; those in ``flat`` see cross-entropy only."""
        for attack in attacks:
            skipped = torch.zeros(len(places), dtype=torch.bool)
            if flat is not None and getattr(attack, "loss", "ce") != "ce":
                skipped = torch.isin(places, flat)
            tried = places[~skipped]
            if len(tried):
                self.asked += 1
                x, labels = self.images.pixels[tried], self.images.labels[tried]
                x_adv = attack(self._target(network, labels), x, labels, torch.Generator().manual_seed(self.asked))
                places = torch.cat([places[skipped], self.right((x_adv * 255).round() / 255, tried)])
        return places

    def right(self, x: Tensor, places: Tensor) -> Tensor:
        """Return which images are classified as they should be, by the judge of the audit: a random network has draws for each image."""
        labels = self.images.labels[places]
        logits = self.subject.judge(self._target(self.built.model, labels).target, x, places.tolist())
        return places[logits.argmax(1) == labels]

    def flat(self, places: Tensor) -> Tensor:
        """Return which images have a gradient of cross-entropy of exactly 0."""
        x, labels = self.images.pixels[places], self.images.labels[places]
        if isinstance(self.built.encoder, PhaseEncoder):
            return places[:0]
        gradient, _ = input_gradient(self._target(self.built.model, labels).logits, x, labels)
        return places[(gradient == 0).flatten(1).all(1)]

    def _target(self, network: nn.Module, labels: Tensor) -> Metered:
        adapted = Adapted(network.eval(), timed=self.built.encoder is not None)
        # Metered, because it gives a network without any gradient one of 0.
        return Metered(ImageTarget(adapted, self.subject.encoder, generator=torch.Generator().manual_seed(self.asked)), Meter(labels))

"""One protocol's evidence, image by image: who was attacked, who was fooled, who is left."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from snn_sparsity.audit.evidence import AttackEvidence, Diagnostics, Evidence, Harness, ProtocolEvidence, Role
from snn_sparsity.audit.judge.comparisons import SLACK, Comparison, compared_arms, compared_inside, paired
from snn_sparsity.audit.judge.masks import Mask, fooled, seen
from snn_sparsity.audit.judge.statistics import Proportion, wilson
from snn_sparsity.audit.judge.thresholds import CALIBRATED, Thresholds


@dataclass(frozen=True)
class Case:
    """What the judge asks of one protocol.

    Attributes:
        evidence: All of the audit.
        protocol: The protocol that is judged.
        thresholds: What turns evidence into a word.
    """

    evidence: Evidence
    protocol: ProtocolEvidence
    thresholds: Thresholds = CALIBRATED

    @property
    def eps(self) -> float:
        """Radius of the audited ball; of flips, 1 is all that are allowed."""
        return 1.0 if self.protocol.perturbation == "flips" else self.evidence.eps

    @property
    def harness(self) -> Harness:
        """Evidence for V1 to V5."""
        return self.protocol.harness

    @property
    def diagnostics(self) -> Diagnostics:
        """Evidence beside the attacks."""
        return self.protocol.diagnostics

    @property
    def samples(self) -> int:
        """How many images were audited."""
        return len(self.evidence.clean)

    @cached_property
    def clean(self) -> Mask:
        """Who is right without an attack, [n]; all others count as broken everywhere."""
        return np.array(self.evidence.clean, dtype=bool)

    def attacks(self, *roles: Role) -> list[AttackEvidence]:
        """Return the attacks of these roles that were made, whole or in part."""
        return [one for one in self.protocol.attacks if one.role in roles and any(answer is not None for answer in one.fooled)]

    @cached_property
    def quoted(self) -> Mask | None:
        """Who is right under the quoted attack, as it returned it; None if it did not run."""
        return self.clean & ~fooled(self._claims, self.samples) if self._claims else None

    @cached_property
    def quoted_eps(self) -> float:
        """Radius of the quoted attack's own ball; the audited one if it did not run."""
        return self._claims[0].eps if self._claims else self.eps

    @cached_property
    def same_ball(self) -> bool:
        """Whether the quoted attack's ball is the audited one."""
        return abs(self.quoted_eps - self.eps) <= SLACK

    @cached_property
    def native(self) -> Mask | None:
        """Who is right under the network's own gradient; None if no such attack ran."""
        ran = self.attacks("native")
        return self.clean & ~fooled(ran, self.samples) if ran else None

    @cached_property
    def native_in_quoted_ball(self) -> Mask | None:
        """Who is right under the network's own gradient inside the quoted attack's ball; None if no such attack ran there."""
        ran = [one for one in self.attacks("native", "radius") if one.eps <= self.quoted_eps + SLACK]
        return self.clean & ~fooled(ran, self.samples) if ran else None

    @cached_property
    def worst(self) -> Mask | None:
        """Who is right under everything inside the audited ball, wherever it was found; None if nothing ran."""
        return self.within(self.eps)

    def within(self, eps: float) -> Mask | None:
        """Return who is right under everything inside a ball, wherever it was found; None if nothing ran there."""
        ran = self.attacks("claim", "native", "reference", "arm", "radius", "extra")
        inside = [one for one in ran if one.eps <= eps + SLACK]
        return self.clean & ~fooled(inside, self.samples) & ~seen(inside, self.samples) if inside else None

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """Every arm, and every family of several together, against the native attack at equal cost; p-values adjusted for their number."""
        return compared_arms(self.protocol.attacks, self.clean, self.eps)

    @cached_property
    def settled(self) -> Mask:
        """Who tells something of masking, [n]: is broken by the network's own gradient, or was left to another attack at equal cost."""
        broken = np.zeros_like(self.clean) if self.native is None else ~self.native
        return broken | compared_inside(self.protocol.attacks, self.clean, self.eps)

    @cached_property
    def weakness(self) -> Comparison | None:
        """The native attacks together against the quoted one, inside its ball; None if either did not run."""
        native = self.native_in_quoted_ball
        if self.quoted is None or native is None:
            return None
        return paired("the native attacks", "none", self.clean, self.clean & ~native, self.clean & ~self.quoted)

    def in_ball(self, one: AttackEvidence) -> bool:
        """Return whether an attack kept to the audited ball."""
        return one.eps <= self.eps + SLACK

    @cached_property
    def _claims(self) -> list[AttackEvidence]:
        return [one for one in self.attacks("claim") if one.status == "done"]

    def share(self, mask: Mask) -> Proportion:
        """Return how many are right, with the 95 % interval."""
        return wilson(int(mask.sum()), self.samples)

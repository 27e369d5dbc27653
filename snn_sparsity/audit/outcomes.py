"""One protocol's evidence, sample by sample: who was attacked, who was fooled, who is left."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snn_sparsity.audit.statistics import in_points

Mask = NDArray[np.bool_]
Outcome = Mapping[str, Any]

COUNTED = ("claim", "standard", "noise", "codebook", "rules", "pool", "blackbox", "transfer")
"""The groups whose attacks count towards the worst case; "sweep" leaves the claimed ball and does not."""

DOES_NOT_APPLY = "does not apply"
"""How the ``why`` of a skipped attack begins if there is nothing it could have tested (no max pooling, say); nothing is missing then."""


def number(values: Mapping[str, Any], key: str) -> float | None:
    """Return the number under a key, NaN and infinity included; None where there is none."""
    value = values.get(key)
    return None if isinstance(value, bool) or not isinstance(value, (int, float)) else float(value)


def truth(values: Mapping[str, Any], key: str) -> bool | None:
    """Return the truth value under a key; None where there is none."""
    value = values.get(key)
    return value if isinstance(value, bool) else None


def section(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return the mapping under a key, empty where there is none."""
    value = values.get(key)
    return value if isinstance(value, Mapping) else {}


@dataclass(frozen=True)
class Case:
    """What the checks ask of one protocol.

    Attributes:
        settings: The audit's settings.
        protocol: The protocol's entry of ``audit.json``.
        clean: [n], who is right without an attack. All others count as broken everywhere.
        harness: The protocol's evidence for V1 to V5.
        diagnostics: The protocol's evidence for V7 to V26.
    """

    settings: Mapping[str, Any]
    protocol: Mapping[str, Any]
    clean: Mask
    harness: Mapping[str, Any] = field(init=False)
    diagnostics: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "harness", section(self.protocol, "harness"))
        object.__setattr__(self, "diagnostics", section(self.protocol, "diagnostics"))

    @classmethod
    def read(cls, evidence: Mapping[str, Any], protocol: str) -> "Case":
        """Read one protocol out of ``audit.json``."""
        clean = np.array([right is True for right in evidence.get("clean") or []], dtype=bool)
        return cls(section(evidence, "settings"), section(section(evidence, "protocols"), protocol), clean)

    @property
    def samples(self) -> int:
        """How many samples the audit looked at."""
        return len(self.clean)

    @property
    def in_spikes(self) -> bool:
        """Whether spikes are attacked rather than pixels."""
        return self.protocol.get("space") == "spikes"

    @property
    def chance(self) -> float | None:
        """Accuracy of guessing, one over the number of classes."""
        classes = number(self.settings, "num_classes")
        return 1 / classes if classes is not None and classes >= 1 else None

    @property
    def outcomes(self) -> list[Outcome]:
        """All outcomes, in the order in which they ran."""
        return list(self.protocol.get("attacks") or [])

    def of(self, *groups: str) -> list[Outcome]:
        """Return the outcomes of these groups, whatever became of them."""
        return [outcome for outcome in self.outcomes if outcome.get("group") in groups]

    def done(self, *groups: str) -> list[Outcome]:
        """Return the outcomes of these groups that ran to their end."""
        return [outcome for outcome in self.of(*groups) if outcome.get("status") == "done"]

    def not_done(self) -> list[Outcome]:
        """Return the outcomes that failed or were skipped although they could have tested something."""
        return [outcome for outcome in self.outcomes if outcome.get("status") != "done" and not _does_not_apply(outcome)]

    def excused(self, group: str) -> bool:
        """Return whether a group has nothing to test here, by its own account."""
        return bool(self.of(group)) and all(_does_not_apply(outcome) for outcome in self.of(group))

    def tried(self, outcomes: list[Outcome]) -> Mask:
        """Return who was attacked by at least one of the outcomes, [n]."""
        return self._any(outcomes, (True, False))

    def fooled(self, outcomes: list[Outcome]) -> Mask:
        """Return who was fooled by at least one of the outcomes, [n]."""
        return self._any(outcomes, (True,))

    def right(self, *groups: str) -> Mask:
        """Return who is right without an attack and under every attack of these groups, [n]: the worst case per example.

        What an attack broke before it failed stays broken.
        """
        return self.clean & ~self.fooled(self.of(*groups))

    def gain(self, group: str, beyond: tuple[str, ...] = ("standard",)) -> int | None:
        """Return how many samples that survive the groups ``beyond`` a group fools; None if it or the standard attacks did not run."""
        if not (self.done("standard") and self.done(group)):
            return None
        return int((self.right(*beyond) & ~self.right(group)).sum())

    def given_back(self, group: str) -> Mask:
        """Return who is broken by this group alone, [n]: right if it were left out of the worst case."""
        return self.right(*(other for other in COUNTED if other != group)) & ~self.right(group)

    def points(self, count: float) -> float:
        """Return a number of samples as percentage points of all."""
        return in_points(count, self.samples)

    def _any(self, outcomes: list[Outcome], answers: tuple[bool, ...]) -> Mask:
        hit = np.zeros(self.samples, dtype=bool)
        for outcome in outcomes:
            answer = (outcome.get("fooled") or [])[: self.samples]
            hit[: len(answer)] |= np.array([isinstance(value, bool) and value in answers for value in answer], dtype=bool)
        return hit


def explains_most(case: Case) -> dict[str, Any] | None:
    """Return the group that the worst case would gain most without, and the attack in it that broke most of those samples.

    The standard attacks are asked last: they see every sample, the groups after them only what they leave.

    Returns:
        ``group``; ``attack``, its name; ``samples``, how many the group alone broke; ``alone``, how many of them the attack did. None if
        no sample is broken by one group alone.
    """
    gains = {group: int(case.given_back(group).sum()) for group in COUNTED}
    beyond = {group: gain for group, gain in gains.items() if group != "standard" and gain}
    group = max(beyond, key=beyond.__getitem__, default="standard")
    if not gains[group]:
        return None
    only = case.given_back(group)
    attacks = [(str(one.get("name")), int((only & case.fooled([one])).sum())) for one in case.of(group)]
    attack, alone = max(attacks, key=lambda pair: pair[1])
    return {"group": group, "attack": attack, "samples": gains[group], "alone": alone}


def _does_not_apply(outcome: Outcome) -> bool:
    return outcome.get("status") == "skipped" and str(outcome.get("why")).startswith(DOES_NOT_APPLY)

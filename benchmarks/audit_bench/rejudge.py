"""Judge the audited networks again on random subsets of their images, and choose the thresholds of the answers."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple

import torch

from benchmarks.audit_bench.truth import Truth
from benchmarks.audit_bench.zoo import Half
from snn_sparsity.audit.evidence import Evidence
from snn_sparsity.audit.judge.answers import Belief
from snn_sparsity.audit.judge.case import Case
from snn_sparsity.audit.judge.checks import CHECKS
from snn_sparsity.audit.judge.thresholds import CALIBRATED, Thresholds

PROTOCOL = "image"
LEVELS = (0.05, 0.01, 0.001)
GAINS = (0.0, 0.01, 0.02, 0.03, 0.04, 0.05)
WEAKNESSES = (0.0, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08)
MOST_FALSE, MOST_MISSED, STABLE = 0.05, 0.10, 0.95
"""What the issue asks for: false accusations, misses, and the same words in so many of the subsets."""


ACCUSATIONS: set[Belief] = {"NOT VALID", "MASKED", "WEAK ATTACK"}
FAULTS = ("masked", "weak", "not valid")


@dataclass(frozen=True, kw_only=True)
class Audited:
    """A network that has been audited.

    Attributes:
        name: Of the network.
        half: Whether thresholds are chosen on it.
        truth: What is true of it.
        evidence: What the audit saw.
    """

    name: str
    half: Half
    truth: Truth
    evidence: Evidence


class Won(NamedTuple):
    """A comparison: its p-value after correction, and its gain as a share of the images."""

    p: float
    gain: float


class Seen(NamedTuple):
    """All that the words about one subset hang on, whatever the thresholds."""

    valid: bool
    arms: list[Won]
    weakness: Won
    broken: bool


def subsets(images: int, size: int, count: int) -> list[list[int]]:
    """Return places of random subsets, the same for every network."""
    generator = torch.Generator().manual_seed(size)
    return [torch.randperm(images, generator=generator)[:size].tolist() for _ in range(count)]


def look(audited: Audited, places: Sequence[int]) -> Seen:
    """Return what the answers about some of the images hang on."""
    evidence = audited.evidence.of(places)
    case = Case(evidence, evidence.protocols[PROTOCOL])
    weakness = case.weakness
    return Seen(
        all(check.look(case).status != "fail" for check in CHECKS if check.kind == "valid"),
        [Won(one.adjusted, one.gain) for one in case.comparisons],
        Won(1.0, 0.0) if weakness is None else Won(weakness.p, weakness.gain),
        case.worst is not None and case.share(case.worst).high <= CALIBRATED.broken,
    )


def words(seen: Seen, thresholds: Thresholds) -> Belief:
    """Return the second answer about enough images, as :func:`judge` gives it."""
    if not seen.valid:
        return "NOT VALID"
    if any(one.p < thresholds.level and one.gain >= thresholds.gain for one in seen.arms):
        return "MASKED"
    weak = seen.weakness.p < thresholds.level and seen.weakness.gain >= thresholds.weakness
    return "WEAK ATTACK" if weak else "NO SIGN OF MASKING"


@dataclass(frozen=True, kw_only=True)
class Rates:
    """How often answers are right.

    Attributes:
        honest: Networks that hide nothing and are measured soundly.
        false: Share of the answers about honest networks that accuse them of what is not true.
        faulty: Networks that are masked, quoted too high, or not valid.
        missed: Share of the answers about faulty networks that do not name the fault.
        stable: Share of networks with the same words in 95 % of the subsets.
        same: Mean share of the subsets with a network's most frequent words.
    """

    honest: int
    false: float
    faulty: int
    missed: float
    stable: float
    same: float


def rates(audited: Sequence[Audited], answers: Sequence[Sequence[Belief]]) -> Rates:
    """Return the rates of the answers about some networks, by network and subset; those of which nothing is held wrong count for stability.

    Example:
        >>> rates([], [])
        Rates(honest=0, false=0.0, faulty=0, missed=0.0, stable=1.0, same=1.0)
    """
    together = list(zip(audited, answers, strict=True))
    false = [_share(said, ACCUSATIONS - one.truth.accepted) for one, said in together if one.truth.honest]
    missed = [1 - _share(said, one.truth.accepted) for one, said in together if one.truth.fault in FAULTS]
    same = [modal(said)[1] for said in answers]
    return Rates(
        honest=len(false), false=_mean(false, 0.0), faulty=len(missed), missed=_mean(missed, 0.0),
        stable=_mean([float(share >= STABLE) for share in same], 1.0), same=_mean(same, 1.0),
    )  # fmt: skip


def modal(said: Sequence[Belief]) -> tuple[Belief, float]:
    """Return the most frequent words, and their share.

    Example:
        >>> modal(["MASKED", "MASKED", "WEAK ATTACK", "MASKED"])
        ('MASKED', 0.75)
    """
    word, count = Counter(said).most_common(1)[0]
    return word, count / len(said)


def choose(audited: Sequence[Audited], seen: Sequence[Sequence[Seen]]) -> tuple[Thresholds, list[tuple[Thresholds, Rates]]]:
    """Choose the thresholds on some networks, and return the rates under each.

    The rule: of those within the goals for false accusations and misses (all, if none is), the least sum of both; of these the most stable
    words; of these what is in use, or else the nearest to it.

    Args:
        audited: The networks.
        seen: By network and subset.
    """
    tried = []
    for level, gain, weakness in product(LEVELS, GAINS, WEAKNESSES):
        thresholds = replace(CALIBRATED, level=level, gain=gain, weakness=weakness)
        tried.append((thresholds, rates(audited, [[words(one, thresholds) for one in of_it] for of_it in seen])))
    good = [one for one in tried if one[1].false <= MOST_FALSE and one[1].missed <= MOST_MISSED] or tried

    def badness(one: tuple[Thresholds, Rates]) -> tuple[float, ...]:
        thresholds, found = one
        far = sum(abs(getattr(thresholds, name) - getattr(CALIBRATED, name)) for name in ("level", "gain", "weakness"))
        return (round(found.false + found.missed, 3), -round(found.stable, 3), -round(found.same, 3), far)

    return min(good, key=badness)[0], tried


def _share(said: Sequence[Belief], words: set[Belief]) -> float:
    return sum(word in words for word in said) / len(said)


def _mean(values: Sequence[float], empty: float) -> float:
    return sum(values) / len(values) if values else empty

"""Each rule and each black box against the native attack, on the same images, at equal cost."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

import numpy as np

from snn_sparsity.audit.evidence import AttackEvidence, Family
from snn_sparsity.audit.judge.masks import Mask, fooled, tried
from snn_sparsity.audit.judge.statistics import holm, mcnemar, paired_difference

SLACK = 1e-6
"""Radii this close are the same."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One attack, or several together, against others on the same images.

    Attributes:
        name: Of the first.
        family: What it does that the native attack does not.
        tried: Images that both tried.
        gained: Images that the first alone breaks.
        lost: Images that the second alone breaks.
        samples: Images that the gain is a share of: all of the audit inside the ball; outside it, where a few are tried, those.
        p: Of the exact one-sided McNemar test.
        adjusted: The same after Holm, over all comparisons of the protocol.
        inside: Whether both kept to the audited ball.
    """

    name: str
    family: Family
    tried: int
    gained: int
    lost: int
    samples: int
    p: float
    adjusted: float = 1.0
    inside: bool = True

    @property
    def gain(self) -> float:
        """What the first breaks more, as a share of ``samples``."""
        return (self.gained - self.lost) / self.samples if self.samples else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the gain."""
        return paired_difference(self.gained, self.lost, self.samples)


def paired(name: str, family: Family, both: Mask, ours: Mask, theirs: Mask, inside: bool = True) -> Comparison:
    """Compare two attacks on the images that both tried.

    Args:
        name: Of the first.
        family: What it does that the native attack does not.
        both: [n], images that both tried.
        ours: [n], images that the first breaks.
        theirs: [n], images that the second breaks.
        inside: Whether both kept to the audited ball.
    """
    gained, lost = int((both & ours & ~theirs).sum()), int((both & theirs & ~ours).sum())
    p, tried = mcnemar(gained, lost), int(both.sum())
    samples = len(both) if inside else tried
    return Comparison(name=name, family=family, tried=tried, gained=gained, lost=lost, samples=samples, p=p, adjusted=p, inside=inside)


class _Meeting(NamedTuple):
    """An arm, or all of a family, and the restarts of the native attack that cost as much."""

    name: str
    arms: list[AttackEvidence]
    restarts: list[AttackEvidence]
    both: Mask
    inside: bool


def compared_arms(attacks: Sequence[AttackEvidence], clean: Mask, eps: float) -> list[Comparison]:
    """Compare every arm of a protocol, and every family of several together, and adjust the p-values for their number.

    Args:
        attacks: Of the protocol.
        clean: [n], who is right without an attack.
        eps: Radius of the audited ball.
    """
    found = [
        paired(one.name, one.arms[0].family, one.both, fooled(one.arms, len(clean)), fooled(one.restarts, len(clean)), one.inside)
        for one in _meetings(attacks, clean, eps)
    ]
    adjusted = holm([one.p for one in found])
    return [replace(one, adjusted=p) for one, p in zip(found, adjusted, strict=True)]


def compared_inside(attacks: Sequence[AttackEvidence], clean: Mask, eps: float) -> Mask:
    """Return which images both an arm and as many restarts of the native attack tried inside the ball, [n]."""
    return np.any([np.zeros_like(clean), *(one.both for one in _meetings(attacks, clean, eps) if one.inside)], axis=0)


def _meetings(attacks: Sequence[AttackEvidence], clean: Mask, eps: float) -> Iterator[_Meeting]:
    ran = [one for one in attacks if one.role == "arm" and any(answer is not None for answer in one.fooled)]
    for _, same in groupby(sorted(ran, key=attrgetter("family")), key=attrgetter("family")):
        arms = list(same)
        groups = [(arm.name, [arm]) for arm in arms] + [(f"all of these together ({arms[0].family})", arms)] * (len(arms) > 1)
        for name, group in groups:
            restarts = _at_equal_cost(group, attacks)
            both = tried(group, len(clean)) & _tried_by_all(restarts, len(clean)) & clean
            if both.any():
                inside = all(one.eps <= eps + SLACK for one in [*group, *restarts])
                yield _Meeting(name, group, restarts, both, inside)


def _tried_by_all(restarts: list[AttackEvidence], samples: int) -> Mask:
    """Return who was attacked by each restart until one broke it, [n]; nobody without restarts."""
    held, broken = np.full(samples, bool(restarts)), np.zeros(samples, dtype=bool)
    for one in restarts:
        held &= tried([one], samples) | broken
        broken |= fooled([one], samples)
    return held


def _at_equal_cost(arms: list[AttackEvidence], attacks: Sequence[AttackEvidence]) -> list[AttackEvidence]:
    """Return as many restarts of the native attack as cost at least what the arms do; none if there are not so many."""
    # A restart that found nobody left to attack counts: what it would have attacked is broken already.
    stream = [one for one in attacks if (one.role, one.stream) == ("reference", arms[0].stream)]
    spent = np.cumsum([one.units for one in stream])
    needed = sum(arm.units for arm in arms)
    enough = int(np.searchsorted(spent, needed - 1e-9)) + 1
    return stream[:enough] if enough <= len(stream) else []

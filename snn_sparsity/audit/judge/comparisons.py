"""Each rule and each black box against the native attack, on the same images, at equal cost."""

from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter

import numpy as np

from snn_sparsity.audit.evidence import AttackEvidence, Family
from snn_sparsity.audit.judge.case import Case, fooled, tried
from snn_sparsity.audit.judge.statistics import holm, mcnemar, paired_difference


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One arm, or all of a family together, against the native attack.

    Attributes:
        name: Of the arm.
        family: What it does that the native attack does not.
        tried: Images that both tried.
        gained: Images that the arm alone breaks.
        lost: Images that the native attack alone breaks.
        samples: Images of the audit.
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
        """What the arm breaks more, as a share of all images."""
        return (self.gained - self.lost) / self.samples if self.samples else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the gain."""
        return paired_difference(self.gained, self.lost, self.samples)


def comparisons(case: Case) -> list[Comparison]:
    """Compare every arm of a protocol, and every family of several together, and adjust the p-values for their number."""
    found = []
    for _, same in groupby(sorted(case.attacks("arm"), key=attrgetter("family")), key=attrgetter("family")):
        arms = list(same)
        found += [one for arm in arms if (one := _compare(case, arm.name, [arm]))]
        if len(arms) > 1 and (together := _compare(case, f"all of these together ({arms[0].family})", arms)):
            found.append(together)
    adjusted = holm([one.p for one in found])
    return [replace(one, adjusted=p) for one, p in zip(found, adjusted, strict=True)]


def _compare(case: Case, name: str, arms: list[AttackEvidence]) -> Comparison | None:
    """Return the comparison; None where the native attack was not given as many passes."""
    reference = _at_equal_cost(case, arms)
    if not reference:
        return None
    both = tried(arms, case.samples) & tried(reference, case.samples) & case.clean
    ours, theirs = fooled(arms, case.samples), fooled(reference, case.samples)
    gained, lost = int((both & ours & ~theirs).sum()), int((both & theirs & ~ours).sum())
    return Comparison(
        name=name, family=arms[0].family, tried=int(both.sum()), gained=gained, lost=lost, samples=case.samples, p=mcnemar(gained, lost),
        inside=all(case.in_ball(one) for one in [*arms, *reference]),
    )  # fmt: skip


def _at_equal_cost(case: Case, arms: list[AttackEvidence]) -> list[AttackEvidence]:
    """Return as many restarts of the native attack as cost at least what the arms do; none if there are not so many."""
    # A restart that found nobody left to attack counts: what it would have attacked is broken already.
    stream = [one for one in case.protocol.attacks if (one.role, one.stream, one.status) == ("reference", arms[0].stream, "done")]
    spent = np.cumsum([one.units for one in stream])
    needed = sum(arm.units for arm in arms)
    enough = int(np.searchsorted(spent, needed - 1e-9)) + 1
    return stream[:enough] if enough <= len(stream) else []

"""What a check is: one question to a protocol's evidence, with its threshold, where that is from, and what to do."""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Literal

from snn_sparsity.audit.judge.case import Case
from snn_sparsity.audit.judge.comparisons import Comparison

CheckStatus = Literal["fail", "warn", "not run", "pass", "does not apply"]
FailureKind = Literal["valid", "masked", "weak", "worked", "symptom"]
"""``valid``: a failure makes the answer NOT VALID; ``masked`` and ``weak``: it makes it MASKED or WEAK ATTACK; the others stand beside."""


@dataclass(frozen=True)
class Finding:
    """What a check found in one protocol.

    Attributes:
        status: ``warn`` where something is worth knowing that decides nothing.
        found: What was measured, in words.
    """

    status: CheckStatus
    found: str


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check; the decision, docs/audit.md and the page are made from these.

    Attributes:
        id: Its number.
        kind: What a failure means.
        question: What it asks.
        threshold: What passes.
        source: Where question and threshold are from.
        remedy: What to do where it fails.
        look: From a protocol's evidence to what was found.
    """

    id: str
    kind: FailureKind
    question: str
    threshold: str
    source: str
    remedy: str
    look: Callable[[Case], Finding]


NOT_MEASURED = Finding("not run", "not measured")


def passes(holds: bool, found: str, otherwise: CheckStatus = "fail") -> Finding:
    """Return a finding that passes where ``holds``."""
    return Finding("pass" if holds else otherwise, found)


def at_most(value: float | None, most: float, found: str, otherwise: CheckStatus = "fail") -> Finding:
    """Return a finding that passes for a finite number of at most ``most``; ``found`` shows it as ``{}``."""
    return NOT_MEASURED if value is None else passes(isfinite(value) and value <= most, found.format(value), otherwise)


def level(case: Case) -> float:
    """Return the chance of a false accusation that the comparisons of a protocol may have together."""
    return case.thresholds.level if case.samples >= case.thresholds.few else case.thresholds.beyond_doubt


def clearly(case: Case, one: Comparison, least: float) -> bool:
    """Return whether a comparison is won beyond chance, and by enough to matter."""
    return one.adjusted < level(case) and one.gain >= least


def won(case: Case, *families: str) -> list[Comparison]:
    """Return the comparisons that an arm has clearly won, inside the ball and the clearest first; of all families if none is named."""
    found = [one for one in case.comparisons if clearly(case, one, case.thresholds.gain) and (not families or one.family in families)]
    return sorted(found, key=lambda one: (not one.inside, one.p))


def compared(case: Case, *families: str) -> Finding:
    """Return what the arms of some families won against the native attack at equal cost."""
    arms = [one for one in case.protocol.attacks if one.role == "arm" and one.family in families]
    if not arms or all(one.status == "does not apply" for one in arms):
        return Finding("does not apply", arms[0].why if arms else "nothing here to change")
    made = [one for one in case.comparisons if one.family in families]
    if not made:
        if any(one in case.attacks("arm") for one in arms):
            return Finding("not run", "the native attack did not run at the same cost")
        if any(one.status == "done" for one in arms):
            return Finding("pass", "no image was left for them")
        return Finding("not run", next((one.why for one in arms if one.why), ""))
    clear = won(case, *families)
    best = clear[0] if clear else min(made, key=lambda one: one.adjusted)
    low, high = best.interval
    return passes(
        not clear,
        f"{best.name}: breaks {best.gained} of {best.tried} that the native attack does not, and {best.lost} the other way round; "
        f"{100 * best.gain:.1f} points ({100 * low:.1f} to {100 * high:.1f}), p = {best.p:.2g}, {best.adjusted:.2g} after Holm",
    )

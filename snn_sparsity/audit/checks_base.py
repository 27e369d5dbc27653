"""A check of the audit: what it looks at, and how its parts make a status."""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal, NamedTuple

from snn_sparsity.audit.outcomes import Case

Status = Literal["pass", "fail", "vote", "warn", "not run"]


class Part(NamedTuple):
    """One thing that a check looks at.

    Attributes:
        found: What was measured, in words.
        holds: Whether it is as wanted; None if it was not measured.
        remark: What the report says because of it, whatever the status.
        warns: Whether it only warns where it does not hold.
    """

    found: str
    holds: bool | None
    remark: str = ""
    warns: bool = False


Look = Callable[[Case], list[Part]]


def plain(value: float) -> str:
    """Return three significant digits."""
    return f"{value:.3g}"


def percent(share: float) -> str:
    """Return a share in percent, as 12.3 %."""
    return f"{100 * share:.1f} %"


def points(value: float) -> str:
    """Return percentage points, as 2.5 points."""
    return f"{value:.1f} points"


def difference(first: float | None, second: float | None) -> float | None:
    """Return first minus second in percentage points, free of rounding; None if one is missing.

    Example:
        >>> difference(0.55, 0.54)
        1.0
    """
    return None if first is None or second is None else round(100 * (first - second), 6)


def part(what: str, value: float | None, wanted: Callable[[float], bool], show: Callable[[float], str] = plain,
         remark: str = "", warns: bool = False) -> Part:  # fmt: skip
    """Compare a number with what is wanted; one that is not finite never holds, a missing one leaves the part open.

    Args:
        what: What was measured.
        value: The number, or None.
        wanted: Whether a finite number is as wanted.
        show: How to write it.
        remark: What to remark where it does not hold.
        warns: Whether that only warns.

    Example:
        >>> part("gap", 0.5, lambda gap: gap <= 0.1, remark="a gap").holds, part("gap", None, bool).found
        (False, 'gap not measured')
    """
    if value is None:
        return Part(f"{what} not measured", None)
    holds = isfinite(value) and wanted(value)
    return Part(f"{what} {show(value)}", holds, remark if isfinite(value) and not holds else "", warns)


def yes_or_no(what: str, value: bool | None, wanted: bool = True) -> Part:
    """Compare a truth value with the wanted one."""
    return Part(f"{what}: {'not measured' if value is None else 'yes' if value else 'no'}", None if value is None else value == wanted)


def largest(values: list[float]) -> float | None:
    """Return the largest value, or one that is not finite if there is any; None of none."""
    return next((value for value in values if not isfinite(value)), max(values, default=None))


@dataclass(frozen=True)
class Check:
    """One of the checks V1 to V26.

    Attributes:
        id: As in docs/audit.md.
        title: What it asks, in a few words.
        wanted: What passes.
        remedy: What to do where it does not.
        look: From a protocol's evidence to the parts.
        failure: Its status where a part does not hold: "fail", or "vote" for a sign of masking.
        starred: Whether its vote weighs more.
    """

    id: str
    title: str
    wanted: str
    remedy: str
    look: Look
    failure: Literal["fail", "vote"] = "fail"
    starred: bool = False

    def __call__(self, case: Case) -> tuple[dict[str, Any], list[str]]:
        """Return the check's entry of the verdict, and its remarks."""
        parts = self.look(case)
        entry = {"id": self.id, "title": self.title, "status": self._status(parts), "starred": self.starred,
                 "found": "; ".join(one.found for one in parts), "wanted": self.wanted, "remedy": self.remedy}  # fmt: skip
        return entry, [one.remark for one in parts if one.remark]

    def _status(self, parts: list[Part]) -> Status:
        if any(one.holds is False and not one.warns for one in parts):
            return self.failure
        if any(one.holds is None for one in parts):
            return "not run"
        return "warn" if any(one.holds is False for one in parts) else "pass"


def check(id: str, title: str, *, wanted: str, remedy: str) -> Callable[[Look], Check]:
    """Make a check that passes or fails of a function."""
    return lambda look: Check(id, title, wanted, remedy, look)


def vote(id: str, title: str, *, wanted: str, remedy: str, starred: bool = False) -> Callable[[Look], Check]:
    """Make a check that votes for masking of a function."""
    return lambda look: Check(id, title, wanted, remedy, look, "vote", starred)

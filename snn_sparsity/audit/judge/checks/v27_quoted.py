"""V27: is the quoted attack as strong as the native one?"""

from snn_sparsity.audit.judge.case import Case
from snn_sparsity.audit.judge.checks.base import NOT_MEASURED, Check, Finding, clearly, passes
from snn_sparsity.audit.judge.thresholds import CALIBRATED


def look(case: Case) -> Finding:
    """Inside the quoted attack's own ball; the two sets are not nested: the quoted attack is no part of the native battery."""
    one = case.weakness
    if one is None:
        return NOT_MEASURED
    low, high = one.interval
    return passes(
        not clearly(case, one, case.thresholds.weakness),
        f"native attacks break {one.gained} of {one.samples} that the quoted one does not, and {one.lost} the other way round; "
        f"{100 * low:.1f} to {100 * high:.1f} points, p = {one.p:.2g}",
    )


CHECK = Check(
    id="V27",
    kind="weak",
    question="Is the quoted attack as strong as the native one?",
    threshold=f"the native attacks break not significantly more (exact one-sided McNemar, p < {CALIBRATED.level}), or by less than "
    f"{100 * CALIBRATED.weakness:g} points",
    source="Carlini et al., arXiv 1902.06705; test, level and points: make audit-bench",
    remedy="quote the worst case; more steps and restarts",
    look=look,
)

"""V27: is the quoted attack as strong as the native one?"""

from snn_sparsity.audit.judge.case import Case
from snn_sparsity.audit.judge.checks.base import NOT_MEASURED, Check, Finding, level, passes
from snn_sparsity.audit.judge.statistics import mcnemar, paired_difference


def look(case: Case) -> Finding:
    """Inside the quoted attack's own ball; the two sets are not nested: the quoted attack is no part of the native battery."""
    native = case.native_in_quoted_ball
    if case.quoted is None or native is None:
        return NOT_MEASURED
    gained, lost = int((case.quoted & ~native).sum()), int((native & ~case.quoted).sum())
    p = mcnemar(gained, lost)
    low, high = paired_difference(gained, lost, case.samples)
    found = f"native attacks break {gained} of {case.samples} that the quoted one does not, and {lost} the other way round"
    return passes(p >= level(case), f"{found}; {100 * low:.1f} to {100 * high:.1f} points, p = {p:.2g}")


CHECK = Check(
    id="V27",
    kind="weak",
    question="Is the quoted attack as strong as the native one?",
    threshold="the native attacks break not significantly more: exact one-sided McNemar, p < 0.01",
    source="Carlini et al., arXiv 1902.06705; the test ours",
    remedy="quote the worst case; more steps and restarts",
    look=look,
)

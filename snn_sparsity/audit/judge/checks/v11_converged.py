"""V11: has the native attack converged?"""

from snn_sparsity.audit.judge.case import Case
from snn_sparsity.audit.judge.checks.base import NOT_MEASURED, Check, Finding, passes
from snn_sparsity.audit.judge.masks import fooled


def look(case: Case) -> Finding:
    """The restarts that the arms are compared with; what they break counts towards the worst case."""
    again = [one for one in case.attacks("reference") if case.in_ball(one)]
    if case.native is None or not again:
        return Finding("pass", "no image was left for them") if case.native is not None and not case.native.any() else NOT_MEASURED
    more = int((case.native & fooled(again, case.samples)).sum())
    return passes(100 * more <= 2 * case.samples, f"{len(again)} more restarts break {more} of {case.samples} more", "warn")


CHECK = Check(
    id="V11",
    kind="worked",
    question="Has the native attack converged?",
    threshold="more restarts break at most 2 points more",
    source='Carlini et al., arXiv 1902.06705 ("verify that attacks have converged"); 2 points: at n = 256 five images',
    remedy="more steps, more restarts: --budget standard",
    look=look,
)

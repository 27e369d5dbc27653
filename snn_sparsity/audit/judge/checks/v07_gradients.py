"""V7: is there a gradient to follow?"""

from snn_sparsity.audit.judge.case import Case
from snn_sparsity.audit.judge.checks.base import NOT_MEASURED, Check, Finding, passes


def look(case: Case) -> Finding:
    """Told, not counted: whether it matters is what the comparisons say."""
    ran = case.attacks("native")
    if not ran:
        return NOT_MEASURED
    start, bad = max(one.zero_gradient_start for one in ran), max(one.not_finite for one in ran)
    entries = case.diagnostics.zero_entries
    rest = "" if entries is None else f"; {100 * entries:.0f} % of the gradient's entries are 0"
    return passes(start == 0 and bad == 0, f"{start} images start without a gradient, {bad} with numbers that are not finite{rest}", "warn")


CHECK = Check(
    id="V7",
    kind="worked",
    question="Is there a gradient to follow?",
    threshold="no image whose gradient is 0 everywhere at the start or not finite",
    source="indicator I1 of Pintor et al., arXiv 2106.09947",
    remedy="another backward rule, the margin loss, an attack without gradients",
    look=look,
)

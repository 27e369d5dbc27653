"""V25: is noise of the same size harmless?"""

from snn_sparsity.audit.judge.case import Case
from snn_sparsity.audit.judge.checks.base import NOT_MEASURED, Check, Finding, passes


def look(case: Case) -> Finding:
    """Noise is that of pixels, whatever is attacked."""
    measured = case.diagnostics.noise
    if not measured:
        return NOT_MEASURED
    lost = {name: 100 * (float(case.clean.mean()) - right) for name, right in measured.items()}
    return passes(
        max(lost.values()) <= 10, ", ".join(f"{value:.1f} points lost to noise of {name} levels" for name, value in lost.items()), "warn"
    )


CHECK = Check(
    id="V25",
    kind="symptom",
    question="Is noise of the same size harmless?",
    threshold="at most 10 points lost to random pixels inside the ball",
    source="ours",
    remedy="report accuracy under noise beside every attack",
    look=look,
)

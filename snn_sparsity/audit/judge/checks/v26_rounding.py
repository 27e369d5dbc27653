"""V26: does rounding undo the attack?"""

from snn_sparsity.audit.judge.case import Case
from snn_sparsity.audit.judge.checks.base import NOT_MEASURED, Check, Finding, passes


def look(case: Case) -> Finding:
    """For real-valued changes of spikes only."""
    right = case.diagnostics.rounded
    if case.protocol.space == "image" or case.protocol.perturbation == "flips":
        return Finding("does not apply", "attacked inputs are valid already")
    if right is None:
        return NOT_MEASURED
    return passes(float(case.clean.mean()) - right > 0.01, f"{100 * right:.1f} % right after rounding", "warn")


CHECK = Check(
    id="V26",
    kind="symptom",
    question="Does rounding undo the attack?",
    threshold="attacked spikes, rounded to 0 and 1, stay more than 1 point below clean",
    source="ours: what rounding removes is no change that an image could have caused",
    remedy="attack pixels",
    look=look,
)

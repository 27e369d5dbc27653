"""V22: does the loss rise along the gradient?"""

from snn_sparsity.audit.judge.case import Case
from snn_sparsity.audit.judge.checks.base import NOT_MEASURED, Check, Finding, passes


def look(case: Case) -> Finding:
    """From -eps to eps along the gradient's signs, and along random ones."""
    share = case.diagnostics.landscape
    return NOT_MEASURED if share is None else passes(share >= 0.8, f"in {100 * share:.0f} % of the images", "warn")


CHECK = Check(
    id="V22",
    kind="symptom",
    question="Does the loss rise along the gradient?",
    threshold="twice as much as along random signs, in 80 % of the images",
    source="ours, after the shattered gradients of Athalye et al., arXiv 1802.00420; not calibrated",
    remedy="average the gradient over noise; attacks without gradients",
    look=look,
)

"""V9: is the loss stable?"""

from snn_sparsity.audit.judge.case import Case
from snn_sparsity.audit.judge.checks.base import Check, Finding, at_most


def look(case: Case) -> Finding:
    """A rough loss is no proof of masking."""
    change = case.diagnostics.loss_change
    return at_most(None if change is None else 100 * change, 10, "mean change {:.1f} %", "warn")


CHECK = Check(
    id="V9",
    kind="symptom",
    question="Is the loss stable?",
    threshold="changes by at most 10 % under noise of half the ball's radius",
    source="indicator I2 of Pintor et al., arXiv 2106.09947; we have not found the 10 % in print",
    remedy="average the gradient over noise; smaller steps",
    look=look,
)

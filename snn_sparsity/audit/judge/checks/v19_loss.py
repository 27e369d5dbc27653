"""V19: does a loss that no scale changes do better?"""

from snn_sparsity.audit.judge.case import Case
from snn_sparsity.audit.judge.checks.base import Check, Finding, compared


def look(case: Case) -> Finding:
    """Logits so large that the softmax is flat hide from cross-entropy alone."""
    return compared(case, "loss")


CHECK = Check(
    id="V19",
    kind="masked",
    question="Does a loss that no scale changes do better?",
    threshold="as for V16, on the images whose cross-entropy has a gradient of exactly 0",
    source="Croce and Hein, arXiv 2003.01690, section 4",
    remedy="attack with the margin or the DLR loss",
    look=look,
)

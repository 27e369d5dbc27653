"""V29: does another image do better where any image is allowed?"""

from snn_sparsity.audit.judge.case import Case
from snn_sparsity.audit.judge.checks.base import Check, Finding, compared


def look(case: Case) -> Finding:
    """An attack that loses against swapping images has no gradient to follow."""
    return compared(case, "unbounded")


CHECK = Check(
    id="V29",
    kind="masked",
    question="Does another image do better where any image is allowed?",
    threshold="as for V16, at eps = 1: the native attack against replacing the image by one of another class",
    source="ours, after Athalye et al., arXiv 1802.00420 (unbounded attacks must succeed)",
    remedy="the native attack fails where success is certain: look for what hides the gradient",
    look=look,
)

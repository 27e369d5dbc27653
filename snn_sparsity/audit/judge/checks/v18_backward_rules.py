"""V18: does another backward pass do better?"""

from snn_sparsity.audit.judge.case import Case
from snn_sparsity.audit.judge.checks.base import Check, Finding, compared


def look(case: Case) -> Finding:
    """Surrogates, ties of max pooling, straight-through where a module blocks the gradient."""
    return compared(case, "rules")


CHECK = Check(
    id="V18",
    kind="masked",
    question="Does another backward pass do better?",
    threshold="as for V16; every logit stays the same, bit for bit (V3)",
    source="gaps between surrogates in arXiv 2209.03358 and 2512.22522; straight-through: Athalye et al., arXiv 1802.00420",
    remedy="report the worst case over the backward rules",
    look=look,
)

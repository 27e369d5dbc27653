"""V16: does an attack without gradients do better?"""

from snn_sparsity.audit.judge.case import Case
from snn_sparsity.audit.judge.checks.base import Check, Finding, compared


def look(case: Case) -> Finding:
    """Square sees margins, RayS and HopSkipJump winners alone, SPSA differences of losses; noise looks at nothing."""
    return compared(case, "no gradient")


CHECK = Check(
    id="V16",
    kind="masked",
    question="Does an attack without gradients do better?",
    threshold="not significantly: exact one-sided McNemar against the native attack at equal cost, Holm over all comparisons, p < 0.01",
    source="AutoAttack's flag for Square beating white-box attacks (arXiv 2003.01690); arXiv 2006.12792, 1904.02144, 1802.05666",
    remedy="the gradient misleads: find where it is masked",
    look=look,
)

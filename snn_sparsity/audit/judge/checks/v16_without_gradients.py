"""V16: does an attack without gradients do better?"""

from snn_sparsity.audit.judge.case import Case
from snn_sparsity.audit.judge.checks.base import Check, Finding, compared
from snn_sparsity.audit.judge.thresholds import CALIBRATED


def look(case: Case) -> Finding:
    """Square sees margins, RayS and HopSkipJump winners alone, SPSA differences of losses; noise looks at nothing."""
    return compared(case, "no gradient")


CHECK = Check(
    id="V16",
    kind="masked",
    question="Does an attack without gradients do better?",
    threshold=f"not significantly (exact one-sided McNemar against the native attack at equal cost, Holm over all comparisons, p < "
    f"{CALIBRATED.level}), or by less than {100 * CALIBRATED.gain:g} points",
    source="AutoAttack's flag for Square beating white-box attacks (arXiv 2003.01690); arXiv 2006.12792, 1904.02144, 1802.05666; level and "
    "points: make audit-bench",
    remedy="the gradient misleads: find where it is masked",
    look=look,
)

"""V21: do surrogate gradients vanish?"""

from snn_sparsity.audit.judge.case import Case
from snn_sparsity.audit.judge.checks.base import NOT_MEASURED, Check, Finding, passes


def look(case: Case) -> Finding:
    """Empty where rules know no neurons."""
    degrees = case.diagnostics.vanishing
    if degrees is None:
        return NOT_MEASURED
    if not degrees:
        return Finding("does not apply", "no neuron that rules know")
    largest, mean = max(degrees.values()), sum(degrees.values()) / len(degrees)
    return passes(largest <= 0.95 and mean <= 0.9, f"largest of a layer {largest:.2f}, mean {mean:.2f}", "warn")


CHECK = Check(
    id="V21",
    kind="symptom",
    question="Do surrogate gradients vanish?",
    threshold="vanishing degree at most 0.95 in each layer, 0.9 in the mean",
    source="the degree is that of arXiv 2512.22522, whose working point is 0.87; thresholds ours, not calibrated",
    remedy="a wider surrogate, ASSG",
    look=look,
)

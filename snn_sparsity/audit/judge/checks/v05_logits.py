"""V5: are the outputs logits?"""

from snn_sparsity.audit.judge.case import Case
from snn_sparsity.audit.judge.checks.base import NOT_MEASURED, Check, Finding, passes


def look(case: Case) -> Finding:
    """Equal first and third logits are common among spike counts, and no fault."""
    if case.harness.probabilities is None:
        return NOT_MEASURED
    ties = case.harness.ties or 0.0
    remark = f"; first and third tie in {100 * ties:.0f} % of the images, where the DLR loss says nothing" if ties else ""
    return passes(not case.harness.probabilities, ("probabilities" if case.harness.probabilities else "logits") + remark, "warn")


CHECK = Check(
    id="V5",
    kind="worked",
    question="Are the outputs logits?",
    threshold="no probabilities; ties are told, because the DLR loss divides by a difference of logits",
    source="AutoAttack's checks (Croce and Hein, arXiv 2003.01690)",
    remedy="attack what comes before the softmax",
    look=look,
)

"""V1: is the network deterministic?"""

from snn_sparsity.audit.judge.case import Case
from snn_sparsity.audit.judge.checks.base import NOT_MEASURED, Check, Finding, passes


def look(case: Case) -> Finding:
    """A random network is a warning where attacks and judgement average over its draws."""
    same, gap = case.harness.deterministic, case.harness.gap_repeat
    if same is None or gap is None:
        return NOT_MEASURED
    averaged = any(one.averaged and one.status == "done" for one in case.protocol.attacks)
    found = f"predictions {'repeat' if same else 'change'}, largest gap {gap:.2g}"
    return passes(
        same and gap <= 1e-4, found + (", judged by the mean of several draws" if averaged else ""), "warn" if averaged else "fail"
    )


CHECK = Check(
    id="V1",
    kind="valid",
    question="Is the network deterministic?",
    threshold="equal predictions in 5 passes, normalised logits within 1e-4; or every image judged by the mean of several draws",
    source="AutoAttack's check_randomized (Croce and Hein, arXiv 2003.01690)",
    remedy="fix the random source, or average over draws (EOT)",
    look=look,
)

"""V14: do the attacks break an undefended network?"""

from snn_sparsity.audit.judge.case import Case
from snn_sparsity.audit.judge.checks.base import NOT_MEASURED, Check, Finding, passes


def look(case: Case) -> Finding:
    """A control that has not learned shows nothing, and says so."""
    control = case.diagnostics.control
    if control is None:
        return NOT_MEASURED
    if control.clean < 0.7 * float(case.clean.mean()):
        return Finding("not run", f"the control has not learned: {100 * control.clean:.0f} % without an attack")
    return passes(control.accuracy <= 0.01, f"{100 * control.accuracy:.1f} % left of {100 * control.clean:.0f} % on {control.what}", "warn")


CHECK = Check(
    id="V14",
    kind="worked",
    question="Do the attacks break an undefended network?",
    threshold="at most 1 % left on a plain network that has learned: clean at least 70 % of what the subject has",
    source="Carlini et al., arXiv 1902.06705 (attack a similar, undefended model); 70 % ours",
    remedy="the attacks are at fault, not the network: debug them on the control",
    look=look,
)

"""V15: does the attack find planted examples?"""

from snn_sparsity.audit.judge.case import Case
from snn_sparsity.audit.judge.checks.base import NOT_MEASURED, Check, Finding, passes


def look(case: Case) -> Finding:
    """The quick budget plants none."""
    planted = case.diagnostics.planted
    if planted is None:
        return NOT_MEASURED
    holds = planted.found >= 0.95 and planted.found_by_noise <= planted.found / 2 and planted.samples >= 64
    return passes(holds, f"{100 * planted.found:.0f} % of {planted.samples} found, {100 * planted.found_by_noise:.0f} % by noise", "warn")


CHECK = Check(
    id="V15",
    kind="worked",
    question="Does the attack find planted examples?",
    threshold="95 % of at least 64, noise at most half as many",
    source="the binarisation test of Zimmermann et al., arXiv 2206.13991; we have not found the 95 % in print",
    remedy="more steps, another loss, another backward rule",
    look=look,
)

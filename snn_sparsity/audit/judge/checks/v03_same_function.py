"""V3: is what is attacked what is judged?"""

from snn_sparsity.audit.judge.case import Case
from snn_sparsity.audit.judge.checks.base import NOT_MEASURED, Check, Finding, passes


def look(case: Case) -> Finding:
    """With BatchNorm in batch mode the network that the attack sees is another one."""
    gap, rules, untouched = case.harness.gap_judge, case.harness.gap_rules, case.harness.state_unchanged
    if untouched is None and gap is None:
        return NOT_MEASURED
    holds = (gap is None or gap <= 1e-5) and (rules is None or rules == 0) and untouched is not False
    batch = "; BatchNorm takes the batch's statistics while the attack is crafted" if case.protocol.batch_norm == "batch" else ""
    rest = "" if untouched is not False else "; weights, buffers or random state changed"
    return passes(holds, f"largest gap {_shown(gap)}, by a backward rule {_shown(rules)}{batch}{rest}")


def _shown(gap: float | None) -> str:
    return "not measured" if gap is None else f"{gap:.2g}"


CHECK = Check(
    id="V3",
    kind="valid",
    question="Is what is attacked what is judged?",
    threshold="logits within 1e-5, identical under every backward rule, weights and random state untouched",
    source='"transfer failure" in Pintor et al., arXiv 2106.09947',
    remedy="craft and judge in eval mode, with the same statistics",
    look=look,
)

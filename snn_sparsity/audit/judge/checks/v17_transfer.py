"""V17: does an attack made on another network do better?"""

from snn_sparsity.audit.judge.case import Case
from snn_sparsity.audit.judge.checks.base import Check, Finding, compared


def look(case: Case) -> Finding:
    """Made on the same weights without spikes, or on a second network."""
    return compared(case, "transfer")


CHECK = Check(
    id="V17",
    kind="masked",
    question="Does an attack made on another network do better?",
    threshold="as for V16",
    source="Athalye et al., arXiv 1802.00420; a negative result proves little",
    remedy="attack the other network first, then this one from what was found",
    look=look,
)

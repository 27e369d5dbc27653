"""V28: does averaging over a random network's draws do better?"""

from snn_sparsity.audit.judge.case import Case
from snn_sparsity.audit.judge.checks.base import Check, Finding, compared


def look(case: Case) -> Finding:
    """Randomness that an attack does not average over hides the gradient."""
    return compared(case, "averaging")


CHECK = Check(
    id="V28",
    kind="masked",
    question="Does averaging over a random network's draws do better?",
    threshold="as for V16",
    source="Athalye et al., arXiv 1802.00420 (expectation over transformation)",
    remedy="attack the mean over draws (EOT)",
    look=look,
)

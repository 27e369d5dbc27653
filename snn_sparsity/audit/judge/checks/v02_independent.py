"""V2: do an image's logits depend on it alone?"""

from snn_sparsity.audit.judge.case import Case
from snn_sparsity.audit.judge.checks.base import Check, Finding, at_most


def look(case: Case) -> Finding:
    """Of a random network the gap would only measure its randomness."""
    return at_most(case.harness.gap_batch, 1e-4, "largest gap {:.2g}")


CHECK = Check(
    id="V2",
    kind="valid",
    question="Do an image's logits depend on it alone?",
    threshold="within 1e-4 alone, in a batch and after other calls",
    source="ours; fails for BatchNorm in batch mode and for neurons that nobody reset",
    remedy="reset the neurons before each pass; BatchNorm in eval mode",
    look=look,
)

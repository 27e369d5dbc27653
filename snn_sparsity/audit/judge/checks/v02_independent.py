"""V2: do an image's logits depend on it alone?"""

from math import isnan

from snn_sparsity.audit.judge.case import Case
from snn_sparsity.audit.judge.checks.base import Check, Finding, at_most


def look(case: Case) -> Finding:
    """Of a random network, logits alone and in a batch would only differ by its randomness; what it remembers shows with the same draws."""
    gaps = [gap for gap in (case.harness.gap_batch, case.harness.gap_state) if gap is not None]
    # A number that is none counts as the largest.
    worst = max(gaps, key=lambda gap: (isnan(gap), gap), default=None)
    return at_most(worst, 1e-4, "largest gap {:.2g}")


CHECK = Check(
    id="V2",
    kind="valid",
    question="Do an image's logits depend on it alone?",
    threshold="within 1e-4 alone, in a batch and after other calls",
    source="ours; fails for BatchNorm in batch mode and for neurons that nobody reset",
    remedy="reset the neurons before each pass; BatchNorm in eval mode",
    look=look,
)

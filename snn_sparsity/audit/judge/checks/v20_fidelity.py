"""V20: does the gradient predict the loss?"""

from snn_sparsity.audit.judge.case import Case
from snn_sparsity.audit.judge.checks.base import NOT_MEASURED, Check, Finding, passes


def look(case: Case) -> Finding:
    """A network without surrogates has no second gradient to compare with."""
    signs, rank, cosine = case.diagnostics.signs_agree, case.diagnostics.rank_correlation, case.diagnostics.surrogate_cosine
    if signs is None or rank is None:
        return NOT_MEASURED
    rest = "" if cosine is None else f", cosine between surrogates {cosine:.2f}"
    holds = signs >= 0.55 and rank >= 0.1 and (cosine is None or cosine >= 0.3)
    return passes(holds, f"signs agree in {100 * signs:.0f} %, rank correlation {rank:.2f}{rest}", "warn")


CHECK = Check(
    id="V20",
    kind="symptom",
    question="Does the gradient predict the loss?",
    threshold="signs agree in 55 % of random moves, rank correlation 0.1; cosine 0.3 between two surrogates' gradients",
    source="ours, not calibrated: it decides nothing",
    remedy="smaller moves, another surrogate, attacks without gradients",
    look=look,
)

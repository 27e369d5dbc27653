"""V1 to V6: was the network attacked that is judged, and within the rules? Where one fails, no accuracy under attack means anything."""

from snn_sparsity.audit.checks_base import Part, check, largest, part, percent, yes_or_no
from snn_sparsity.audit.outcomes import COUNTED, Case, number, truth

DIFFERENT_FUNCTIONS = "crafted and judged as different functions"


@check(
    "V1",
    "The network is deterministic",
    wanted="equal predictions in 5 passes, logits within 1e-4; or an attack on the average gradient (EOT)",
    remedy="fix the random source, or attack with EOT",
)
def deterministic(case: Case) -> list[Part]:
    """An attack with EOT cures a random network."""
    parts = [
        yes_or_no("equal predictions in repeated passes", truth(case.harness, "deterministic")),
        part("largest gap between repeats", number(case.harness, "logit_gap_repeat"), lambda gap: gap <= 1e-4),
    ]
    averaged = any("EOT(" in str(outcome.get("attack")) for outcome in case.done(*COUNTED))
    if averaged and any(one.holds is False for one in parts):
        return [*(one._replace(warns=True) for one in parts), Part("attacked with EOT", True)]
    return parts


@check(
    "V2",
    "A sample's logits depend on it alone",
    wanted="logits within 1e-4 alone, in a batch and after other calls",
    remedy="reset the neurons before each pass; BatchNorm in eval mode",
)
def independent(case: Case) -> list[Part]:
    """One forward pass each."""
    return [part("largest gap between alone and in a batch", number(case.harness, "logit_gap_batch"), lambda gap: gap <= 1e-4)]


@check(
    "V3",
    "What is attacked is what is judged",
    wanted="logits within 1e-5 of each other, the same under every gradient rule, and no state changed",
    remedy="craft and judge in eval mode, with the same statistics",
)
def same_function(case: Case) -> list[Part]:
    """With BatchNorm in batch mode they differ, and the report says so by itself."""
    remark = DIFFERENT_FUNCTIONS + (" (BatchNorm)" if case.protocol.get("batch_norm") == "batch" else "")
    return [
        part("largest gap between crafting and judging", number(case.harness, "logit_gap_judge"), lambda gap: gap <= 1e-5, remark=remark),
        part("largest change by a gradient rule", number(case.harness, "rules_logit_gap"), lambda gap: gap == 0),
        yes_or_no("weights, buffers and random state untouched", truth(case.harness, "state_unchanged")),
    ]


@check(
    "V4",
    "Attacked inputs stay in the threat model",
    wanted="at most eps + 1e-6 away and in the bounds; pixels on the 8-bit lattice",
    remedy="project each step, and round pixels before judging",
)
def in_the_ball(case: Case) -> list[Part]:
    """The farthest input of the harness's own test and of every attack; which are codes of an image is for the record."""
    return [_farthest(case), yes_or_no("in the bounds", truth(case.harness, "in_bounds")), *_lattice(case), *_realisable(case)]


def _farthest(case: Case) -> Part:
    eps, tested = number(case.settings, "eps"), number(case.harness, "largest_perturbation")
    if eps is None or tested is None:
        return Part("largest perturbation not measured", None)
    others = [far for outcome in case.done(*COUNTED) if (far := number(outcome, "largest_perturbation")) is not None]
    return part(f"eps {eps:.7g}, largest perturbation", largest([tested, *others]), lambda far: far <= eps + 1e-6, "{:.7g}".format)


def _lattice(case: Case) -> list[Part]:
    return [] if case.in_spikes else [yes_or_no("8-bit pixels", truth(case.harness, "on_lattice"))]


def _realisable(case: Case) -> list[Part]:
    share = number(case.harness, "realisable")
    if share is None:
        return []
    remark = ""
    if case.in_spikes and share == 0:
        remark = "no valid code but the clean one lies in the ball: no attacked input is the code of an image"
    elif case.in_spikes and share < 1:
        remark = f"only {percent(share)} of the attacked inputs are the code of an image in the ball"
    return [Part(f"codes of an image in the ball {percent(share)}", True, remark)]


@check(
    "V5",
    "Outputs are logits",
    wanted="not probabilities; first and third logit tie in under 1 % of the samples",
    remedy="attack what comes before the softmax; where spike counts tie, use the margin loss",
)
def logits(case: Case) -> list[Part]:
    """Two classes have no third logit."""
    probabilities = yes_or_no("outputs are probabilities", truth(case.harness, "outputs_are_probabilities"), wanted=False)
    classes = number(case.settings, "num_classes")
    if classes is not None and classes < 3:
        return [probabilities, Part("no third logit to tie with", True)]
    ties = number(case.harness, "logit_ties")
    return [probabilities, part("samples whose first and third logit tie", ties, lambda share: share < 0.01, percent)]


@check(
    "V6", "The attacks are the published ones", wanted="equal to foolbox and pyautoattack from the same start", remedy="run the test suite"
)
def oracles(case: Case) -> list[Part]:
    """Settled when this version was tested."""
    return [Part("compared with foolbox and pyautoattack in this version's test suite", True)]


HARNESS = (deterministic, independent, same_function, in_the_ball, logits, oracles)

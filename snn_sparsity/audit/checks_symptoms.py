"""V20 to V26: what masked gradients look like, and what the threat model leaves out; a vote each, without a star."""

from snn_sparsity.audit.checks_base import Part, difference, largest, part, percent, points, vote
from snn_sparsity.audit.checks_harness import DIFFERENT_FUNCTIONS
from snn_sparsity.audit.outcomes import Case, number, section


@vote(
    "V20",
    "The gradient predicts the loss",
    wanted="signs agree in 55 %, rank correlation 0.1; cosine 0.3 between the gradients of two surrogates",
    remedy="smaller moves, another surrogate, attacks without gradients",
)
def fidelity(case: Case) -> list[Part]:
    """A network without surrogates has no second gradient to compare with."""
    evidence, cosine = section(case.diagnostics, "fidelity"), number(case.diagnostics, "surrogate_cosine")
    return [
        part("signs agree", number(evidence, "sign_agreement"), lambda share: share >= 0.55, percent),
        part("rank correlation", number(evidence, "spearman"), lambda value: value >= 0.1),
        *([] if cosine is None else [part("cosine between surrogates", cosine, lambda value: value >= 0.3)]),
    ]


@vote(
    "V21",
    "Surrogate gradients do not vanish",
    wanted="vanishing degree at most 0.95 in each layer, 0.9 in the mean",
    remedy="a wider surrogate, ASSG",
)
def vanishing(case: Case) -> list[Part]:
    """An empty table is that of a network without spiking neurons."""
    if case.diagnostics.get("vanishing") == {}:
        return [Part("does not apply here", True)]
    layers = section(case.diagnostics, "vanishing")
    degrees = {path: degree for path in layers if (degree := number(layers, path)) is not None}
    if not degrees:
        return [Part("vanishing degree not measured", None)]
    return [
        part("largest of a layer", largest(list(degrees.values())), lambda degree: degree <= 0.95),
        part("mean", sum(degrees.values()) / len(degrees), lambda degree: degree <= 0.9),
    ]


@vote(
    "V22",
    "The loss rises along the gradient",
    wanted="twice the rise along a random direction in at least 80 % of the samples",
    remedy="average the gradient over noise; attacks without gradients",
)
def landscape(case: Case) -> list[Part]:
    """Along the sign of the gradient and along random signs."""
    return [part("samples with twice the rise", number(case.diagnostics, "landscape"), lambda share: share >= 0.8, percent)]


@vote(
    "V23",
    "Zero gradients block no step",
    wanted="under 1 point lost when zero entries move at random",
    remedy="fill zero gradients when attacking",
)
def zero_fill(case: Case) -> list[Part]:
    """Otherwise sparsity is the defence."""
    lost = difference(number(case.diagnostics, "unfilled_accuracy"), number(case.diagnostics, "zero_filled_accuracy"))
    return [part("lost when zero entries move at random", lost, lambda value: value < 1, points)]


@vote(
    "V24",
    "BatchNorm adds nothing",
    wanted="at most 1 point from crafting with batch statistics, at most 1 from adapted ones",
    remedy="craft and judge in eval mode",
)
def batch_norm(case: Case) -> list[Part]:
    """Holds by construction where nothing is crafted with batch statistics."""
    if case.protocol.get("batch_norm") == "eval":
        return [Part("crafted and judged with the trained statistics", True)]
    evidence = section(case.diagnostics, "batch_norm")
    crafted = difference(number(evidence, "crafted_batch"), number(evidence, "crafted_eval"))
    adapted = difference(number(evidence, "judged_adapted"), number(evidence, "judged_frozen"))
    adaptation = f"statistics adapted to the test batch: worth {points(adapted or 0)} of accuracy under attack"
    return [
        part("from batch statistics", crafted, lambda gain: gain <= 1, points, remark=f"{DIFFERENT_FUNCTIONS} (BatchNorm)"),
        # Either way: adapted statistics make it another network.
        part("from adapted ones", adapted, lambda gain: abs(gain) <= 1, points, remark=adaptation),
    ]


@vote(
    "V25",
    "Noise of the same size is harmless",
    wanted="at most 10 points lost to random pixels inside the ball",
    remedy="report accuracy under noise beside every attack",
)
def noise(case: Case) -> list[Part]:
    """Noise is that of pixels, whatever is attacked."""
    measured, ball = section(case.diagnostics, "noise"), number(case.settings, "eps_levels")
    inside = sorted(int(level) for level in measured if level.isdecimal() and ball is not None and int(level) <= ball)
    if not inside:
        return [Part("noise inside the ball not measured", None)]
    left = [number(measured, str(level)) for level in inside]
    parts = [
        part(f"lost to ±{level} grey levels", difference(_clean(case), right), lambda cost: cost <= 10, points,
             remark="not robust to random perturbations inside the claimed ball")
        for level, right in zip(inside, left, strict=True)
    ]  # fmt: skip
    if case.in_spikes and left[-1] is not None:
        remark = f"accuracy under noise of the same size in pixels (±{inside[-1]} grey levels): {percent(left[-1])}"
        parts.append(Part(f"{percent(left[-1])} left", True, remark))
    return parts


def _clean(case: Case) -> float | None:
    measured = number(case.diagnostics, "clean_accuracy")
    return measured if measured is not None or not case.samples else float(case.clean.mean())


@vote(
    "V26",
    "Rounding does not undo the attack",
    wanted="attacked spikes, once rounded, are still more than 1 point below clean",
    remedy="attack pixels",
)
def round_trip(case: Case) -> list[Part]:
    """Pixels are on their lattice already (V4)."""
    if case.protocol.get("space") == "image":
        return [Part("does not apply here", True)]
    right = number(case.diagnostics, "rebinarised_accuracy")
    remark = "spike-space perturbations are removed by re-binarisation: not a pixel-level robustness claim"
    parts = [part("rounded spikes below clean by", difference(_clean(case), right), lambda lost: lost > 1, points, remark=remark)]
    if right is not None:
        parts.append(Part(f"{percent(right)} left", True, f"accuracy after re-binarising the attacked spikes: {percent(right)}"))
    return parts


SYMPTOMS = (fidelity, vanishing, landscape, zero_fill, batch_norm, noise, round_trip)

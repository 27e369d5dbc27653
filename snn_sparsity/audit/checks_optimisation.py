"""V7 to V15: did the attacks optimise? Where one does not pass, a high accuracy may be the attack's failure."""

from itertools import pairwise

from snn_sparsity.audit.checks_base import Part, check, difference, largest, part, percent, plain, points
from snn_sparsity.audit.outcomes import COUNTED, Case, Outcome, number, section
from snn_sparsity.audit.statistics import mcnemar


def white_box(case: Case, key: str) -> list[float]:
    """Return what the white-box attacks that had anybody left to attack say under a key."""
    asked = [outcome for outcome in case.done("standard", "codebook") if case.tried([outcome]).any()]
    return [value for outcome in asked if (value := number(outcome, key)) is not None]


@check(
    "V7",
    "Gradients exist",
    wanted="no sample whose gradient is zero everywhere at the start, or not finite; at most 50 % zero entries",
    remedy="another gradient rule (surrogate, ASSG, pooling), the margin loss, zero-fill",
)
def gradients(case: Case) -> list[Part]:
    """Later zero gradients are only shown: an iterate may well reach a flat place."""
    start, ever, bad = (largest(white_box(case, key)) for key in ("zero_gradient_start", "zero_gradient", "not_finite"))
    entries = number(case.diagnostics, "zero_gradient_entries")
    return [
        part("samples without a gradient at the start", start, lambda count: count == 0),
        *([] if ever is None else [Part(f"at any step {plain(ever)}", True)]),
        *([] if bad is None else [part("with logits or a gradient that is not finite", bad, lambda count: count == 0)]),
        part("zero entries of the input's gradient", entries, lambda share: share <= 0.5, percent, warns=True),
    ]


@check(
    "V8",
    "The attack moves the input",
    wanted="at least 60 % of the entries by eps/2 or more (pixels: to another code)",
    remedy="attack pixels rather than spikes, which sit in the corners of their box; fill zero gradients",
)
def moved(case: Case) -> list[Part]:
    """The attack that moves most speaks for all: corners and zero gradients hold back every one."""
    return [part("entries moved by the attack that moves most", largest(white_box(case, "moved")), lambda share: share >= 0.6, percent)]


@check(
    "V9",
    "The loss is stable",
    wanted="changes by at most 10 % under random noise of the ball's size",
    remedy="average the gradient over noise; smaller steps",
)
def stable_loss(case: Case) -> list[Part]:
    """A warning at most."""
    change = number(case.diagnostics, "loss_change_under_noise")
    return [part("mean change of the loss under noise", change, lambda share: share <= 0.1, percent, warns=True)]


@check(
    "V10",
    "No success is lost",
    wanted="every sample fooled at some step is returned as fooled",
    remedy="return the best iterate",
)
def no_silent_success(case: Case) -> list[Part]:
    """The attack under audit may return its last iterate, as published code does; ours may not."""
    ours = case.done(*(group for group in COUNTED if group != "claim"))
    counts = [value for outcome in ours if (value := number(outcome, "silent")) is not None]
    return [part("samples fooled on the way and not at the end", sum(counts) if counts else None, lambda count: count == 0)]


@check(
    "V11",
    "The optimisation is complete",
    wanted="doubling the steps costs at most 0.5 points; the loss still rises on at most 5 % of the samples",
    remedy="more steps, more restarts",
)
def converged(case: Case) -> list[Part]:
    """Doubling decides; a loss that still rises to no avail is a warning."""
    doubling = section(case.diagnostics, "doubling")
    lost = difference(number(doubling, "accuracy"), number(doubling, "accuracy_doubled"))
    rising = largest(white_box(case, "still_improving"))
    return [
        part("accuracy lost when the steps are doubled", lost, lambda value: value <= 0.5, points),
        part("samples whose loss still rises", rising, lambda share: share <= 0.05, percent, warns=True),
    ]


@check(
    "V12",
    "A larger ball is worse, the largest is fatal",
    wanted="never rising with eps; at most 1.5 times chance at 128/255; 0 at 255/255",
    remedy="the attack is broken: debug it at 255/255",
)
def unbounded(case: Case) -> list[Part]:
    """The accuracies are cumulative: the worst over all smaller balls."""
    curve, chance = _sweep(case), case.chance
    if not curve or chance is None:
        return [Part("sweep of eps not measured", None)]
    rises = [later - earlier for (_, earlier), (_, later) in pairwise(curve)]
    return [
        part("largest rise with eps", largest([0.0, *rises]), lambda rise: rise <= 0, percent),
        part("left at 128/255", _at(curve, 128), lambda right: right <= 1.5 * chance, percent),
        part("left at 255/255", _at(curve, 255), lambda right: right == 0, percent),
    ]


def _sweep(case: Case) -> list[tuple[float, float]]:
    pairs = [(number(entry, "eps"), number(entry, "accuracy")) for entry in case.diagnostics.get("eps_sweep") or []]
    return sorted((eps, right) for eps, right in pairs if eps is not None and right is not None)


def _at(curve: list[tuple[float, float]], levels: int) -> float | None:
    return next((right for eps, right in curve if abs(255 * eps - levels) < 0.5), None)


@check(
    "V13",
    "Iterating helps",
    wanted="not more than 0.5 points behind FGSM (exact McNemar, p < 0.01); at most 1 point fooled by FGSM alone",
    remedy="a smaller step, more steps; look for an error in the projection",
)
def iterating_helps(case: Case) -> list[Part]:
    """On the samples that both kinds of attack tried: what is broken is not attacked again in the same group."""
    attacks = case.done("claim", "standard")
    one_step, iterated = [one for one in attacks if _is_fgsm(one)], [one for one in attacks if not _is_fgsm(one)]
    both = case.clean & case.tried(one_step) & case.tried(iterated)
    if not both.any():
        return [Part("FGSM beside an iterated attack not measured", None)]
    after_one, after_many = ~case.fooled(one_step)[both], ~case.fooled(iterated)[both]
    behind, alone = int(after_many.sum()) - int(after_one.sum()), int((after_many & ~after_one).sum())
    p = mcnemar(after_many, after_one)
    return [
        part("iterated attacks behind FGSM by", case.points(behind), lambda gap: gap <= 0.5 or p >= 0.01, points),
        part(f"p = {p:.2g}; fooled by FGSM alone", case.points(alone), lambda share: share <= 1, points),
    ]


def _is_fgsm(outcome: Outcome) -> bool:
    return "FGSM(" in str(outcome.get("attack"))


@check(
    "V14",
    "The battery breaks an undefended network",
    wanted="at most 1 % left on the control",
    remedy="the attacks are at fault, not the network: debug them on the control",
)
def control(case: Case) -> list[Part]:
    """The control is a network known to have no defence."""
    evidence = section(case.diagnostics, "control")
    return [part(f"left on {evidence.get('what', 'the control')}", number(evidence, "accuracy"), lambda right: right <= 0.01, percent)]


@check(
    "V15",
    "The attack finds planted examples",
    wanted="at least 95 % of at least 64, noise at most half as many",
    remedy="more steps, another loss, another gradient rule",
)
def planted(case: Case) -> list[Part]:
    """Fewer than 64 are a warning."""
    evidence = section(case.diagnostics, "planted")
    found = number(evidence, "found")
    return [
        part("planted examples found", found, lambda share: share >= 0.95, percent),
        part("by noise", number(evidence, "found_by_noise"), lambda share: found is None or share <= 0.5 * found, percent),
        part("samples", number(evidence, "samples"), lambda count: count >= 64, plain, warns=True),
    ]


OPTIMISATION = (gradients, moved, stable_loss, no_silent_success, converged, unbounded, iterating_helps, control, planted)

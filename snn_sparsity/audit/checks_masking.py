"""V16* to V19*: do other attacks succeed where the standard ones failed? Then those were held up by their gradient: a starred vote each."""

from collections.abc import Callable

from snn_sparsity.audit.checks_base import Part, part, plain, points, vote
from snn_sparsity.audit.outcomes import Case
from snn_sparsity.audit.statistics import mcnemar

NATIVE = ("standard", "codebook")
"""Attacks that take the network's own gradient: what a backward rule must beat."""


@vote(
    "V16",
    "Attacks without gradients find nothing new",
    wanted="at most 0.2 points more than the standard attacks (black-box: or at most 2 samples)",
    remedy="the gradient misleads: find where it is masked",
    starred=True,
)
def black_box(case: Case) -> list[Part]:
    """A long search may be lucky once or twice on few samples; noise may not."""
    blind, noise = case.gain("blackbox"), case.gain("noise")
    return _nothing_left(case) or [
        part("more fooled by black-box attacks", blind, lambda count: case.points(count) <= 0.2 or count < 3, _of(case)),
        part("by noise", noise, lambda count: case.points(count) <= 0.2, _of(case)),
    ]


@vote(
    "V17",
    "Transferred examples find nothing new",
    wanted="at most 1 point more than the standard attacks",
    remedy="attack the rate twin first, then this network from its examples",
    starred=True,
)
def transfer(case: Case) -> list[Part]:
    """A negative result proves little, a positive one is conclusive."""
    more = case.gain("transfer")
    return _nothing_left(case) or [part("more fooled by transferred examples", more, lambda count: case.points(count) <= 1, _of(case))]


@vote(
    "V18",
    "The surrogate does not decide",
    wanted="under 2 points more than attacks with the network's own gradient, or exact McNemar p >= 0.01; 5 points are strong",
    remedy="report the worst case over the gradient rules",
    starred=True,
)
def backward_rules(case: Case) -> list[Part]:
    """The forward pass is the same bit for bit (V3)."""
    more, p = case.gain("rules", NATIVE), mcnemar(case.right(*NATIVE), case.right(*NATIVE, "rules"))
    return _nothing_left(case, NATIVE) or _excused(case, "rules") or [
        part("more fooled when only the backward pass changes", more, lambda count: case.points(count) < 2 or p >= 0.01,
             lambda count: f"{_of(case)(count)}{', strong' if case.points(count) >= 5 else ''}, p = {p:.2g}"),
    ]  # fmt: skip


@vote(
    "V19",
    "Ties in max pooling hide nothing",
    wanted="under 2 points more than attacks with the network's own gradient",
    remedy="share the gradient over ties when attacking",
    starred=True,
)
def pooling(case: Case) -> list[Part]:
    """The forward pass still takes the maximum."""
    more = case.gain("pool", NATIVE)
    return _nothing_left(case, NATIVE) or _excused(case, "pool") or [
        part("more fooled when pooling passes gradient to all", more, lambda count: case.points(count) < 2, _of(case)),
    ]  # fmt: skip


def _nothing_left(case: Case, groups: tuple[str, ...] = ("standard",)) -> list[Part]:
    settled = bool(case.done("standard")) and not case.right(*groups).any()
    return [Part("no sample survives the attacks before", True)] if settled else []


def _excused(case: Case, group: str) -> list[Part]:
    return [Part("does not apply here", True)] if case.excused(group) else []


def _of(case: Case) -> Callable[[float], str]:
    return lambda count: f"{plain(count)} of {case.samples} ({points(case.points(count))})"


MASKING = (black_box, transfer, backward_rules, pooling)

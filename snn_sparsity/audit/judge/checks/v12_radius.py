"""V12: is a larger ball worse, and the largest fatal?"""

from snn_sparsity.audit.judge.case import Case
from snn_sparsity.audit.judge.checks.base import NOT_MEASURED, Check, Finding, passes
from snn_sparsity.audit.judge.statistics import Proportion


def look(case: Case) -> Finding:
    """An image counts as broken at every radius above the one that broke it, so that the curve never rises."""
    if case.protocol.perturbation == "flips":
        return Finding("does not apply", "flips have no radius")
    curve = {round(255 * eps): share.value for eps, share in by_radius(case)}
    if 128 not in curve or 255 not in curve:
        return NOT_MEASURED
    holds = curve[128] <= 1.5 / max(case.evidence.num_classes, 1) and curve[255] == 0
    return passes(holds, f"{100 * curve[128]:.1f} % left at 128/255, {100 * curve[255]:.1f} % at 255/255", "warn")


def by_radius(case: Case) -> list[tuple[float, Proportion]]:
    """Return the worst case at each radius that was tried, from 0 up: never rising."""
    if case.worst is None:
        return []
    tried = {one.eps for one in case.protocol.attacks if one.role == "radius" and one.status == "done"} | {case.eps}
    left = {eps: case.within(eps) for eps in sorted(tried)}
    return [(0.0, case.share(case.clean)), *((eps, case.share(mask)) for eps, mask in left.items() if mask is not None)]


CHECK = Check(
    id="V12",
    kind="worked",
    question="Is a larger ball worse, and the largest fatal?",
    threshold="at most 1.5 times chance left at 128/255, nothing at 255/255",
    source="Athalye et al., arXiv 1802.00420; Carlini et al., arXiv 1902.06705",
    remedy="the attack fails where nothing can hold: debug it at 255/255",
    look=look,
)

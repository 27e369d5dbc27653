"""V4: do attacked inputs stay in the threat model?"""

from snn_sparsity.audit.judge.case import Case
from snn_sparsity.audit.judge.checks.base import NOT_MEASURED, Check, Finding, passes


def look(case: Case) -> Finding:
    """Which attacked spike trains are the code of some image is for the record."""
    far = [one for one in case.protocol.attacks if one.largest_perturbation > one.eps + 1e-6]
    inside, lattice, valid = case.harness.in_bounds, case.harness.on_lattice, case.harness.realisable
    if inside is None:
        return NOT_MEASURED
    codes = "" if valid is None else f"; {100 * valid:.0f} % of the attacked spike trains are the code of an image"
    outside = f"{far[0].name} went {far[0].largest_perturbation:.4g} away" if far else "all inside the ball"
    return passes(not far and inside and lattice is not False, f"{outside}; {'in' if inside else 'out of'} the bounds{codes}")


CHECK = Check(
    id="V4",
    kind="valid",
    question="Do attacked inputs stay in the threat model?",
    threshold="no farther than the radius + 1e-6, in the bounds, pixels on the 8-bit lattice",
    source="Carlini et al., arXiv 1902.06705",
    remedy="project each step, and round pixels before judging",
    look=look,
)

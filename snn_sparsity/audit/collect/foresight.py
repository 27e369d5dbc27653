"""What an audit is going to cost, before it starts: a first attack on a few images says how long a pass takes and how many survive."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from snn_sparsity.audit.collect.attacking import attack_batch
from snn_sparsity.audit.collect.battery import cost
from snn_sparsity.audit.collect.threat_models import ThreatModel
from snn_sparsity.audit.collect.work import Work

PILOT = 30


@dataclass(frozen=True)
class Foresight:
    """How long the attacks of an audit are going to take.

    Attributes:
        seconds: If as many images survive the rest as survived the first attack.
        at_most: If no attack breaks an image.
    """

    seconds: float
    at_most: float

    def __str__(self) -> str:
        return f"about {_length(self.seconds)} on this machine, at most {_length(self.at_most)}, if no attack breaks an image"


def foresee(work: Work, models: Sequence[ThreatModel]) -> Foresight:
    """Attack the first images once with the native attack of the first threat model, and say how long all attacks are going to take."""
    few = work.right[: work.subject.batch_size]
    host = models[0].battery(work.budget, work.eps, work.facts).host()
    # The first pass also does what is done once.
    attack_batch(work.subject, models[0], models[0].noise(work.eps, 1), few, (PILOT,))
    began = time.perf_counter()
    pilot = attack_batch(work.subject, models[0], host, few, (PILOT, 1))
    per_unit = (time.perf_counter() - began) / max(len(few) * cost(host), 1)
    surviving = pilot.get("fooled", []).count(False) / max(len(few), 1)
    batteries = [model.battery(work.budget, work.eps, work.facts) for model in models if not model.drifts]
    averaging = sum(cost(job.attack) for battery in batteries for jobs in battery.averaging() for job in jobs)
    return Foresight(*(per_unit * len(work.right) * (averaging + units_of(work, models, share)) for share in (surviving, 1.0)))


def units_of(work: Work, models: Sequence[ThreatModel], surviving: float = 1.0) -> float:
    """Return the units that an image costs, if this share of the images survives the native attacks: a unit is a forward pass."""
    total = 0.0
    for model in models:
        total += cost(model.quoted(work.claim, work.eps))
        if not model.drifts:
            battery = model.battery(work.budget, work.eps, work.facts)
            native = sum(cost(job.attack) for job in [*battery.cross_entropy(), *battery.scale_free()])
            later = sum(cost(job.attack) for job in [*battery.references(), *battery.arms()])
            radii = work.radii if model.perturbation == "linf" else []
            balls = sum(1.0 if eps < work.eps else surviving for eps in radii) * cost(battery.host())
            # The first attacks of the battery break most of what it breaks.
            total += native * (1 + 3 * surviving) / 4 + surviving * later + balls
    return total


def _length(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 6000 else f"{seconds / 3600:.0f} hours"

"""What the batches of an attack say together, as the judge reads it."""

from typing import Any

from snn_sparsity.audit.collect.attacking import BatchResult
from snn_sparsity.audit.collect.battery import Job, cost
from snn_sparsity.audit.evidence import AttackEvidence


def outcome_of(job: Job, records: list[BatchResult], count: int, averaged: bool) -> AttackEvidence:
    """Return the records of an attack's batches as one piece of evidence.

    Args:
        job: The attack.
        records: Of its batches.
        count: Images of the audit.
        averaged: Whether its images are judged by the mean of several draws.
    """
    done = [record for record in records if record["status"] == "done"]
    broken = [record for record in records if record["status"] != "done"]
    attacked = max(sum(len(record["places"]) for record in done), 1)
    return AttackEvidence(
        name=job.name,
        role=job.role,
        family=job.family,
        stream=job.stream,
        attack=repr(job.attack),
        eps=float(job.attack.eps),
        units=cost(job.attack),
        one_step=job.attack.passes.backwards == 1,
        averaged=averaged,
        status=broken[0]["status"] if broken else "done",
        why=broken[0]["why"] if broken else "",
        fooled=_by_place(done, "fooled", count),
        seen=_by_place(done, "seen", count),
        forwards=sum(record["forwards"] for record in done),
        backwards=sum(record["backwards"] for record in done),
        seconds=round(sum(record["seconds"] for record in done), 3),
        zero_gradient_start=sum(sum(record["zero_start"]) for record in done),
        zero_gradient=sum(sum(record["zero"]) for record in done),
        still_improving=sum(sum(record["improving"]) for record in done) / attacked,
        largest_perturbation=max((record["largest"] for record in done), default=0.0),
        not_finite=sum(record["not_finite"] for record in done),
    )


def legality(records: list[BatchResult]) -> dict[str, Any]:
    """V4: whether all attacked inputs lay in the bounds and, for images, on the 8-bit lattice."""
    if not records:
        return {}
    realisable = [value for record in records for value in record.get("realisable", [])]
    lattice = [record["on_lattice"] for record in records if "on_lattice" in record]
    return {
        "largest_perturbation": max(record["largest"] for record in records),
        "in_bounds": all(record["in_bounds"] for record in records),
        "on_lattice": all(lattice) if lattice else None,
        "realisable": sum(realisable) / len(realisable) if realisable else None,
    }


def rounded(records: list[BatchResult], count: int) -> dict[str, float]:
    """V26: accuracy on the rounded spikes of the quoted attack."""
    right = [value for record in records for value in record.get("right_rounded", [])]
    return {"rounded": sum(right) / count} if right else {}


def _by_place(records: list[BatchResult], key: str, count: int) -> list[bool | None]:
    values: list[bool | None] = [None] * count
    for record in records:
        for place, value in zip(record["places"], record[key], strict=True):
            values[place] = value
    return values

"""What the batches of an attack say together, as the verdict reads it."""

from typing import Any

from snn_sparsity.attacks import PGD
from snn_sparsity.audit.attacking import Record
from snn_sparsity.audit.battery import Facts, Job
from snn_sparsity.audit.subject import Protocol


def outcome_of(job: Job, records: list[Record], count: int) -> dict[str, Any]:
    """Return the records of an attack's batches as one outcome (docs/audit.md)."""
    done = [record for record in records if record["status"] == "done"]
    broken = [record for record in records if record["status"] != "done"]
    fooled: list[bool | None] = [None] * count
    for record in done:
        for place, value in zip(record["places"], record["fooled"], strict=True):
            fooled[place] = value
    attacked = max(sum(len(record["places"]) for record in done), 1)
    return {
        "name": job.name,
        "group": job.group,
        "attack": repr(job.attack),
        "status": broken[0]["status"] if broken else "done",
        "why": broken[0]["why"] if broken else "",
        "fooled": fooled,
        "forwards": sum(record["forwards"] for record in done),
        "backwards": sum(record["backwards"] for record in done),
        "seconds": round(sum(record["seconds"] for record in done), 3),
        "zero_gradient_start": sum(sum(record["zero_start"]) for record in done),
        "zero_gradient": sum(sum(record["zero"]) for record in done),
        "silent": sum(sum(record["silent"]) for record in done),
        "still_improving": sum(sum(record["improving"]) for record in done) / attacked,
        "moved": sum(sum(record["moved"]) for record in done) / attacked,
        "largest_perturbation": max((record["largest"] for record in done), default=0.0),
        "not_finite": sum(record["not_finite"] for record in done),
        "_records": done,
    }


def without_object(protocol: Protocol, facts: Facts, count: int) -> list[dict[str, Any]]:
    """Return outcomes that say which groups have nothing to attack: that is no gap in the battery."""
    missing = {} if facts.max_pooling else {"pool": "there is no max pooling"}
    if protocol.space == "image" and not facts.code_book:
        missing["codebook"] = "the code does not work pixel by pixel"
    if protocol.name == "paper":
        return []
    empty: dict[str, Any] = outcome_of(Job("none", "pool", PGD()), [], count)
    return [empty | {"group": group, "attack": "", "status": "skipped", "why": f"does not apply: {why}"} for group, why in missing.items()]


def legality(outcomes: list[dict[str, Any]]) -> dict[str, Any]:
    """V4: whether all attacked inputs lay in the ball, the bounds and, for images, on the 8-bit lattice."""
    records = [record for outcome in outcomes for record in outcome["_records"]]
    if not records:
        return {}
    realisable = [value for record in records for value in record.get("realisable", [])]
    lattice = [record["on_lattice"] for record in records if "on_lattice" in record]
    return {
        "largest_perturbation": max(record["largest"] for record in records),
        "in_bounds": all(record["in_bounds"] for record in records),
        "on_lattice": all(lattice) if lattice else None,
    } | ({"realisable": sum(realisable) / len(realisable)} if realisable else {})


def rebinarised(outcomes: list[dict[str, Any]]) -> dict[str, Any]:
    """V26: accuracy on the rounded spikes of the last attack under audit."""
    claims = [outcome for outcome in outcomes if outcome["group"] == "claim" and outcome["_records"]]
    right = [value for record in claims[-1]["_records"] for value in record.get("right_rounded", [])] if claims else []
    count = len(claims[-1]["fooled"]) if claims else 0
    return {"rebinarised_accuracy": sum(right) / count} if right else {}

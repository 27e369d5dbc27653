"""The table of the bench: thresholds chosen on one half of the networks, reported on the other."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tqdm import tqdm

from benchmarks.audit_bench.rejudge import PROTOCOL, Audited, Rates, Seen, choose, look, modal, rates, subsets, words
from snn_sparsity.audit.judge.answers import Belief, judge
from snn_sparsity.audit.judge.thresholds import CALIBRATED

TRUTHS = ("masked", "weak", "not valid", "between", "none")
FEWER = (16, 32, 64, 128)
"""Smaller subsets, to see what few images say."""


def calibrated(audited: Sequence[Audited], count: int, size: int) -> dict[str, Any]:
    """Choose thresholds, judge every network on its subsets, and return everything as plain values.

    Args:
        audited: The networks.
        count: How many subsets.
        size: Images of a subset.
    """
    places = subsets(len(audited[0].evidence.labels), size, count)
    seen = [[look(one, of_it) for of_it in places] for one in tqdm(audited, desc="subsets", unit="network")]
    half = [place for place, one in enumerate(audited) if one.half == "choose"]
    chosen, tried = choose([audited[place] for place in half], [seen[place] for place in half])
    beliefs = [[words(subset, CALIBRATED) for subset in of_it] for of_it in seen]
    return {
        "subsets": count,
        "size": size,
        "chosen": asdict(chosen),
        "in_use": asdict(CALIBRATED),
        "rates": {half: asdict(_rates(audited, beliefs, half)) for half in ("choose", "report")},
        "networks": [_row(*of_it) for of_it in zip(audited, beliefs, seen, strict=True)],
        "checks": _checks(audited),
        "fewer": {few: _fewer(audited, few, max(count // 10, 1)) for few in FEWER if few < size},
        "grid": [asdict(found) | {name: getattr(one, name) for name in ("level", "gain", "weakness")} for one, found in tried],
    }


def _rates(audited: Sequence[Audited], beliefs: Sequence[Sequence[Belief]], half: str) -> Rates:
    places = [place for place, one in enumerate(audited) if one.half == half]
    return rates([audited[place] for place in places], [beliefs[place] for place in places])


def _row(one: Audited, said: Sequence[Belief], seen: Sequence[Seen]) -> dict[str, Any]:
    truth, (word, same) = one.truth, modal(said)
    whole = judge(one.evidence)[PROTOCOL]
    broken = sum(subset.broken for subset in seen) / len(seen)
    return {
        "name": one.name, "half": one.half, "truth": asdict(truth), "fault": truth.fault, "accepted": sorted(truth.accepted),
        "words": word, "same": same, "wrong": sum(belief not in truth.accepted for belief in said) / len(said),
        "all_images": whole.belief, "because": whole.because, "under_attack": whole.under_attack,
        "worst": None if whole.worst is None else round(whole.worst.value * whole.worst.samples), "broken": broken,
    }  # fmt: skip


def _checks(audited: Sequence[Audited]) -> dict[str, dict[str, list[int]]]:
    """Return of each check how many networks it fails or warns about, and of how many it was measured, by what is true of them."""
    found: dict[str, dict[str, list[int]]] = {}
    for one in audited:
        for checked in judge(one.evidence)[PROTOCOL].checks:
            counts = found.setdefault(checked.check.id, {}).setdefault(one.truth.fault, [0, 0])
            counts[0] += checked.finding.status in ("fail", "warn")
            counts[1] += checked.finding.status in ("fail", "warn", "pass")
    return found


def _fewer(audited: Sequence[Audited], size: int, count: int) -> dict[str, Any]:
    """Return how often few images accuse an honest network falsely, name a fault, and are said to be too few."""
    places = subsets(len(audited[0].evidence.labels), size, count)
    said = [[judge(one.evidence.of(of_it))[PROTOCOL].belief for of_it in places] for one in audited]
    found = rates(audited, said)
    few = sum(words.count("TOO FEW IMAGES") for words in said) / sum(map(len, said))
    return {"false": found.false, "named": 1 - found.missed, "too_few": few}


def markdown(result: dict[str, Any]) -> str:
    """Return the tables in Markdown."""
    audited = result["networks"][0]["truth"]["images"]
    parts = [
        f"Each network was audited on {audited} images and judged on {result['subsets']} random subsets of {result['size']}.",
        _table(
            ["half", "honest", "false accusations", "faulty", "misses", "networks with the same words in 95 %", "same words"],
            [
                ["thresholds chosen on it" if half == "choose" else "reported", found["honest"], _percent(found["false"]), found["faulty"],
                 *(_percent(found[name]) for name in ("missed", "stable", "same"))]
                for half, found in result["rates"].items()
            ],
        ),
        f"Right of {audited} images: without an attack; under the quoted one; under the network's own gradient and under an attacker "
        "who knows what hides it, with 10 and with 50 steps; under all of these; and under the audit.",
        _table(
            ["network", "half", "clean", "quoted", "native", "knowing", "left", "audit", "truth", "words", "in", "wrong", "BROKEN in"],
            [_of_network(row) for row in result["networks"]],
        ),
        "Fewer images, by the thresholds in use.",
        _table(
            ["images", "honest networks accused falsely", "faults named", "TOO FEW IMAGES"],
            [[few, *(_percent(found[name]) for name in ("false", "named", "too_few"))] for few, found in result["fewer"].items()],
        ),
        "How many networks each check fails or warns about, of those that it was measured on, by what is true of them.",
        _table(
            ["check", *TRUTHS],
            [
                [check, *("{} of {}".format(*counts.get(fault, [0, 0])) for fault in TRUTHS)]
                for check, counts in result["checks"].items()
            ],
        ),
        _table(
            ["threshold", "chosen", "in use"],
            [[name, result["chosen"][name], result["in_use"][name]] for name in ("level", "gain", "weakness")],
        ),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _of_network(row: dict[str, Any]) -> list[Any]:
    truth = row["truth"]
    left = truth["left"] if truth["certified"] is None else f"{truth['left']} (exactly {truth['certified']})"
    efforts = [f"{truth[who]['short']} / {truth[who]['long']}" for who in ("native", "knowing")]
    shares = [_percent(row[name]) for name in ("same", "wrong", "broken")]
    return [row["name"], row["half"], truth["clean"], truth["quoted"], *efforts, left, row["worst"], row["fault"], row["words"], *shares]


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [f"| {' | '.join(str(cell) for cell in row)} |" for row in (header, *rows)]
    return "\n".join([lines[0], f"|{'---|' * len(header)}", *lines[1:]])


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"

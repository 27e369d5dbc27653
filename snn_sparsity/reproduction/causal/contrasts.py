"""Two outcomes on the same images that differ in one thing, a family of tests a question."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from snn_sparsity.audit.judge.statistics import holm
from snn_sparsity.documents.blocks import Table, words
from snn_sparsity.reproduction.attackers import MODES, PURE, TITLES, Attacker, attacks_in, same_as
from snn_sparsity.reproduction.causal.trained import DENSE, SPARSE, WORST, Trained
from snn_sparsity.reproduction.paired import Difference, difference, signed, smallest_effect

LEVEL = 0.05
IDENTITY = ("pooling", "training", "weight_decay", "seed", "network", "dataset", "epochs", "train_images")
"""What tells networks of the experiment apart."""


class Contrast(NamedTuple):
    """Two outcomes on the same images that differ in one thing.

    Attributes:
        mode: The protocol; empty for clean accuracy.
        attack: The attack, or ``clean``.
        where: What is equal.
        first: What the first is.
        second: What the second is.
        found: The difference, first - second.
    """

    mode: str
    attack: str
    where: str
    first: str
    second: str
    found: Difference


def attacker_contrasts(networks: Sequence[Trained]) -> list[Contrast]:
    """Return every attacker against the one who takes the network's own gradient: same network, same forward pass."""
    return [
        Contrast(TITLES[mode], attack, each.label, attacker, "own", difference(outcomes[attack], each.outcomes[mode]["own"][attack]))
        for each in networks
        for mode in MODES
        for attacker, outcomes in each.outcomes[mode].items()
        if attacker != "own" and attacker != same_as("own", each.pooling)
        for attack in attacks_in(mode)
    ]


def training_contrasts(networks: Sequence[Trained]) -> list[Contrast]:
    """Return sparse against dense gradients in training: same forward pass, same seed and decay."""
    return [found for sparse, dense in _pairs(networks, "training", (SPARSE, DENSE)) for found in _compared(sparse, dense, "training")]


def forward_contrasts(networks: Sequence[Trained]) -> list[Contrast]:
    """Return max against average pooling forward: gradients at the pool as sparse in training and for the attacker."""
    return [found for one, other in _pairs(networks, "pooling", ("max", "avg")) for found in _compared(one, other, "pooling")]


def paper_contrasts(networks: Sequence[Trained]) -> list[Contrast]:
    """Return what the paper compares, max with average pooling, each trained and attacked with its own gradient: both things at once."""
    own = [each for each in networks if same_as(each.backward, each.pooling) == same_as("own", each.pooling)]
    return [
        found for one, other in _pairs(own, "pooling", ("max", "avg"), ("training",)) for found in _compared(one, other, "pooling", "own")
    ]


def decay_contrasts(networks: Sequence[Trained]) -> list[Contrast]:
    """Return weight decay against none: same forward pass, training gradient and seed."""
    decays = sorted({each.weight_decay for each in networks})
    if len(decays) != 2:
        return []
    return [
        found for one, other in _pairs(networks, "weight_decay", (decays[1], decays[0])) for found in _compared(one, other, "weight_decay")
    ]


QUESTIONS = {
    "Does an attacker gain or lose by the zeros? (same network; the attacker's gradient at the pool changes)": attacker_contrasts,
    "Does training with sparse gradients make a network robust? (same forward pass; training's gradient changes)": training_contrasts,
    "Does max pooling's forward pass? (gradients at the pool equally sparse; the forward pass changes)": forward_contrasts,
    "What the paper compares (max with average pooling, each with its own gradient: both change at once)": paper_contrasts,
    "Does weight decay?": decay_contrasts,
}
"""One family of tests each: p-values are corrected within a question."""


def contrast_table(name: str, contrasts: Sequence[Contrast]) -> Table:
    """Return paired differences with their intervals, exact p-values corrected for their number, and what could have been seen."""
    corrected = holm([each.found.p for each in contrasts])
    header = [
        "protocol",
        "attack",
        "where",
        "first",
        "second",
        "first - second, points",
        "right alone",
        "p",
        "p, Holm",
        "reads",
        "could have seen",
    ]
    rows = []
    for each, p in zip(contrasts, corrected, strict=True):
        found = each.found
        seen = smallest_effect(found.images, (found.only_first + found.only_second + 2) / (found.images + 2), LEVEL / len(contrasts))
        reads = "no difference seen" if p > LEVEL else f"{each.first if found.value > 0 else each.second} keeps more"
        rows.append(words([
            each.mode, each.attack, each.where, each.first, each.second,
            f"{signed(100 * found.value)} [{signed(100 * found.low)}, {signed(100 * found.high)}]",
            f"{found.only_first} : {found.only_second}", f"{found.p:.3g}", f"{p:.3g}", reads,
            "nothing" if math.isnan(seen) else f"{100 * seen:.1f}",
        ]))  # fmt: skip
    return Table(name, header, rows)


def _pairs(
    networks: Sequence[Trained], attribute: str, values: tuple[object, object], free: Sequence[str] = ()
) -> Iterator[tuple[Trained, Trained]]:
    """Yield networks that differ in one attribute, and in those that follow from it, after training of the same length."""
    for one in networks:
        for other in networks:
            equal = [name for name in IDENTITY if name not in (attribute, *free)]
            if (getattr(one, attribute), getattr(other, attribute)) == values and all(getattr(one, n) == getattr(other, n) for n in equal):
                yield one, other


def _compared(one: Trained, other: Trained, attribute: str, attacker: Attacker | None = None) -> Iterator[Contrast]:
    """Yield two networks' difference without attack, under equal attackers (one sparse, one dense, or one given), and in the worst case."""
    names = f"{attribute} {getattr(one, attribute)}", f"{attribute} {getattr(other, attribute)}"
    parts = {"pooling": one.pooling, "trained": one.training, "decay": f"{one.weight_decay:g}"}
    changed = {"pooling": "pooling", "training": "trained", "weight_decay": "decay"}[attribute]
    where = ", ".join([*(f"{name} {value}" for name, value in parts.items() if name != changed), f"seed {one.seed}"])
    yield Contrast("", "clean", where, *names, difference(one.clean, other.clean))
    attackers: tuple[Attacker, ...] = PURE if attacker is None else (attacker,)
    for mode in MODES:
        for attack in attacks_in(mode):
            for each in attackers:
                found = difference(one.outcomes[mode][each][attack], other.outcomes[mode][each][attack])
                yield Contrast(TITLES[mode], attack, f"{where}; attacker {each}", *names, found)
        yield Contrast(TITLES[mode], WORST, where, *names, difference(one.worst(mode), other.worst(mode)))

"""Max pooling's advantage taken apart, over sets of four networks, and how accuracy moves with the attacker's zeros."""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from snn_sparsity.documents.blocks import Table, words
from snn_sparsity.reproduction.attackers import ATTACKERS, MODES, PURE, TITLES, Mode, attacks_in
from snn_sparsity.reproduction.causal.trained import DENSE, SPARSE, WORST, Trained
from snn_sparsity.reproduction.paired import Pooled, Slope, pooled, signed, slope
from snn_sparsity.validation import InputError

EFFECTS = "Max pooling's advantage, taken apart"
POOLINGS = ("max", "avg")


class Effects(NamedTuple):
    """Max minus average pooling, each trained and attacked with its own gradient, taken apart: ``both = training + attacker + forward``.

    Attributes:
        mode: The protocol; None without an attack.
        attack: The attack, ``clean``, or ``WORST``: right under every attack of every attacker.
        both: What the paper compares.
        training: Of it, what zeros in training's gradient do.
        attacker: Of it, what zeros in the attacker's gradient do; 0 without an attack, and where all attackers are tried.
        zeros: Both kinds of zeros together, the forward pass held fixed: the paper's claim.
        forward: What is left: the forward pass.
    """

    mode: Mode | None
    attack: str
    both: Pooled
    training: Pooled
    attacker: Pooled
    zeros: Pooled
    forward: Pooled


def complete_sets(networks: Sequence[Trained]) -> list[dict[tuple[str, str], Trained]]:
    """Return the sets of four networks, max and average pooling trained sparse and dense, that share all else (:attr:`Trained.setting`).

    Raises:
        InputError: If two networks are the same but for their names: which of them is meant cannot be told.
    """
    found: dict[object, dict[tuple[str, str], Trained]] = {}
    for each in networks:
        cells, cell = found.setdefault(each.setting, {}), (each.pooling, each.training)
        if cell in cells:
            raise InputError(f"{cells[cell].name} and {each.name} are both {each.label}: give one of them")
        cells[cell] = each
    return [cells for cells in found.values() if len(cells) == 4]


def effects(networks: Sequence[Trained]) -> list[Effects]:
    """Return max pooling's advantage taken apart: clean, under every attack, and in each protocol's worst case; none without a set."""
    sets = complete_sets(networks)
    if not sets:
        return []
    attacks: list[tuple[Mode | None, str]] = [(None, "clean")]
    attacks += [(mode, attack) for mode in MODES for attack in (*attacks_in(mode), WORST)]
    found = []
    for mode, attack in attacks:
        kinds = [[_added(cells[kind], mode, attack) for cells in sets] for kind in product(POOLINGS, (SPARSE, DENSE))]
        parts = [pooled([[each[place] for each in same] for same in kinds]) for place in range(5)]
        found.append(Effects(mode, attack, *parts))
    return found


def _added(each: Trained, mode: Mode | None, attack: str) -> list[NDArray[np.float64]]:
    """Return what a network adds to each effect, image by image, so that the sum over a set of four is the effect."""
    sparse, dense = (np.array(each.clean if mode is None else each.right(mode, attack, attacker), dtype=float) for attacker in PURE)
    kind = each.pooling, each.training
    both = sparse if kind == ("max", SPARSE) else -dense if kind == ("avg", DENSE) else np.zeros_like(sparse)
    training = (sparse + dense) / 4 if each.training == SPARSE else -(sparse + dense) / 4
    attacker = (sparse - dense) / 4
    return [both, training, attacker, training + attacker, both - training - attacker]


def about_effects(found: Sequence[Effects]) -> str:
    """Return how to read the table of these effects."""
    several = found[0].zeros.sets > 1
    over = "Means over sets of four networks, with 95 % intervals over networks and images"
    one = "Of one set of four networks, with 95 % intervals over images alone: other networks may differ by more"
    return (
        "Points of accuracy by which max pooling is ahead of average pooling, each trained and attacked with its own gradient, as the "
        "paper compares them: the sum of what zeros in training's gradient do (same forward pass, same attacker), what zeros in the "
        f"attacker's gradient do (same network), and what is left to the forward pass. {over if several else one}. 'Zeros together' is "
        "the paper's claim; 'could have seen' the true effect that 80 % of such experiments would tell from 0."
    )


def effect_table(found: Sequence[Effects]) -> Table:
    """Return max pooling's advantage and its parts, in points with 95 % intervals, and what the experiment could have seen."""
    header = [
        "protocol",
        "attack",
        "max - average",
        "= zeros in training",
        "+ zeros of the attacker",
        "+ forward pass",
        "zeros together",
        "zeros read",
        "could have seen",
    ]
    rows = [
        words([
            TITLES[each.mode] if each.mode else "", each.attack,
            *map(points, (each.both, each.training, each.attacker, each.forward, each.zeros)),
            "raise it" if each.zeros.low > 0 else "lower it" if each.zeros.high < 0 else "no effect seen", f"{100 * each.zeros.seen:.1f}",
        ])
        for each in found
    ]  # fmt: skip
    return Table("effects", header, rows)


def slopes(networks: Sequence[Trained], mode: Mode, attack: str) -> Slope:
    """Return the change of accuracy under an attack with zeros at the pool, within networks: the attackers' gradients alone differ."""
    points = [
        (each.zeros[mode][attacker], each.outcomes[mode][attacker][attack], place)
        for place, each in enumerate(networks)
        for attacker in ATTACKERS
        if attacker != "own"
    ]
    return slope(*zip(*points, strict=True))


def points(effect: Pooled) -> str:
    """Return an effect in points with its interval.

    Example:
        >>> points(Pooled(0.012, -0.02, 0.044, 0.05, 2, 500))
        '+1.2 [-2.0, +4.4]'
    """
    return f"{signed(100 * effect.value)} [{signed(100 * effect.low)}, {signed(100 * effect.high)}]"

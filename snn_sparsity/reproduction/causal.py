"""Do zeros make a network robust? Networks x attackers, compared in pairs on the same images, and one figure that answers."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from snn_sparsity.audit.judge.statistics import holm, wilson
from snn_sparsity.documents.blocks import Block, Heading, Picture, Table, words
from snn_sparsity.figures.drawing import BLUE, VERMILLION, canvas, labelled, legend
from snn_sparsity.reproduction.attackers import ATTACKERS, MODES, TITLES, Attacker, Mode, attacks_in, same_as
from snn_sparsity.reproduction.paired import Difference, Pooled, Slope, difference, pooled, slope, smallest_effect

COLOURS = {"max": BLUE, "avg": VERMILLION}
LEVEL = 0.05
SPARSE, DENSE = "sparse", "dense"
WORST = "worst of all attackers"
PURE: tuple[Attacker, Attacker] = ("first", "uniform")
"""The sparsest attacker and the densest."""


EFFECTS = "Max pooling's advantage, taken apart"
ABOUT_EFFECTS = (
    "Points of accuracy by which max pooling is ahead of average pooling, each trained and attacked with its own gradient, as the paper "
    "compares them: the sum of what zeros in training's gradient do (same forward pass, same attacker), what zeros in the attacker's "
    "gradient do (same network), and what is left to the forward pass. Means over sets of four networks, with 95 % intervals over networks "
    "and images. 'Zeros together' is the paper's claim; 'could have seen' the true effect that 80 % of such experiments would tell from 0."
)


@dataclass(frozen=True)
class Trained:
    """One network of the grid and what was measured on it.

    Attributes:
        name: The run's.
        pooling: Forward: ``max`` or ``avg``.
        backward: Share of the pooling's gradient in training.
        weight_decay: Of training.
        seed: Of training.
        outcomes: ``clean`` and, by mode, attacker and attack, which images were classified right.
        zeros: Zeros at the pool by mode and attacker.
        audit: Accuracy in the worst case of the run's audit by protocol, in words; empty without one.
        network: ``SEW-ResNet18``.
        dataset: ``cifar10``.
        epochs: Epochs trained.
        train_images: Images trained on.
        original_images: How many of the judged images are known to be the dataset's own pixels.
    """

    name: str
    pooling: str
    backward: Attacker
    weight_decay: float
    seed: int
    clean: Sequence[bool]
    outcomes: Mapping[Mode, Mapping[Attacker, Mapping[str, Sequence[bool]]]]
    zeros: Mapping[Mode, Mapping[Attacker, float]]
    audit: Mapping[str, str]
    network: str
    dataset: str
    epochs: int
    train_images: int
    original_images: int

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> "Trained":
        """Return a network from what ``causal.json`` holds of it."""
        outcomes = {
            mode: {attacker: {name: _right(text) for name, text in attacks.items()} for attacker, attacks in by.items()}
            for mode, by in content["attacked"].items()
        }
        return cls(
            content["name"], content["pooling"], content["backward"], content["weight_decay"], content["seed"], _right(content["clean"]),
            outcomes, content["zeros"], content["audit"],
            *(content[name] for name in ("network", "dataset", "epochs", "train_images", "original_images")),
        )  # fmt: skip

    @property
    def training(self) -> str:
        """Whether training's gradient at the pool was sparse or dense."""
        return SPARSE if same_as(self.backward, self.pooling) in ("first", "random") else DENSE

    @property
    def label(self) -> str:
        """What it is, in a table."""
        return f"{self.pooling}, trained {self.training} ({self.backward}), decay {self.weight_decay:g}, seed {self.seed}"

    def right(self, mode: Mode, attack: str, attacker: Attacker) -> Sequence[bool]:
        """Return which images withstand an attack of a mode, or all of them (``WORST``)."""
        return self.worst(mode) if attack == WORST else self.outcomes[mode][attacker][attack]

    def worst(self, mode: Mode) -> list[bool]:
        """Return which images withstand every attacker and attack of a mode, and are classified right without one."""
        every = [self.clean, *(outcome for attacks in self.outcomes[mode].values() for outcome in attacks.values())]
        return [all(each) for each in zip(*every, strict=True)]


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
    """Return the sets of four networks, max and average pooling trained sparse and dense, that share seed and weight decay."""
    found: dict[tuple[float, int], dict[tuple[str, str], Trained]] = {}
    for each in networks:
        found.setdefault((each.weight_decay, each.seed), {})[each.pooling, each.training] = each
    return [cells for cells in found.values() if len(cells) == 4]


def effects(networks: Sequence[Trained]) -> list[Effects]:
    """Return max pooling's advantage taken apart: clean, under every attack, and in each protocol's worst case; none without a set."""
    sets = complete_sets(networks)
    if not sets:
        return []
    attacks: list[tuple[Mode | None, str]] = [(None, "clean")]
    attacks += [(mode, attack) for mode in MODES for attack in (*attacks_in(mode), WORST)]
    return [_effects(sets, mode, attack) for mode, attack in attacks]


def _effects(sets: Sequence[Mapping[tuple[str, str], Trained]], mode: Mode | None, attack: str) -> Effects:
    def right(cells: Mapping[tuple[str, str], Trained], pooling: str, training: str, attacker: Attacker) -> NDArray[np.float64]:
        each = cells[pooling, training]
        return np.array(each.clean if mode is None else each.right(mode, attack, attacker), dtype=float)

    parts = []
    for cells in sets:
        both = right(cells, "max", SPARSE, "first") - right(cells, "avg", DENSE, "uniform")
        training = np.mean(
            [right(cells, pool, SPARSE, each) - right(cells, pool, DENSE, each) for pool, each in product(COLOURS, PURE)], axis=0
        )
        attacker = np.mean(
            [right(cells, pool, each, "first") - right(cells, pool, each, "uniform") for pool, each in product(COLOURS, (SPARSE, DENSE))],
            axis=0,
        )
        zeros = training + attacker
        parts.append([both, training, attacker, zeros, both - zeros])
    return Effects(mode, attack, *(pooled(part) for part in zip(*parts, strict=True)))


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


def answer(networks: Sequence[Trained]) -> list[str]:
    """Return what was found, a sentence a protocol, in numbers."""
    images, sentences = len(networks[0].clean), []
    for mode in MODES:
        attack = attacks_in(mode)[-1]
        found = slopes(networks, mode, attack)
        low, high = 10 * found.low, 10 * found.high
        reads = (
            "undefined: zeros do not vary" if math.isnan(found.value)
            else "a slope up: attackers with sparser gradients do less" if found.low > 0
            else "a slope down: attackers with sparser gradients do more" if found.high < 0
            else "no slope seen"
        )  # fmt: skip
        sentences.append(
            f"{TITLES[mode]}, {attack}: {_signed(10 * found.value)} points [{_signed(low)}, {_signed(high)}] of accuracy for each 10 "
            f"points of zeros in the attacker's gradient at the pool, within {len(networks)} networks on the same {images} images: {reads}."
        )
    return sentences


def blocks(networks: Sequence[Trained]) -> Iterator[Block]:
    """Yield the whole document: answer, figure, networks, one table a question."""
    yield (
        "The paper (arXiv 2509.23762) claims that the zeros which max pooling puts into gradients make a network robust. Here the zeros "
        "are set apart from the forward pass: every network is attacked with sparse and with dense gradients at its pool, and networks "
        "with either pooling were trained with either gradient. A horizontal cloud refutes the claim, a slope upwards supports it."
    )
    yield from answer(networks)
    caption = (
        "Accuracy under the strongest attack of each protocol against zeros at the pooling's input; a point is a network and an attacker."
    )
    yield Picture("causal", lambda: figure(networks), caption)
    if found := effects(networks):
        yield Heading(EFFECTS)
        yield ABOUT_EFFECTS
        yield effect_table(found)
    yield Heading("The networks")
    yield network_table(networks)
    for question, contrasts in QUESTIONS.items():
        if pairs := contrasts(networks):
            yield Heading(question)
            yield contrast_table(question, pairs)
    yield (
        "Differences are paired (McNemar's exact test, two-sided; Bonett and Price's 95 % interval); 'p, Holm' is corrected for all tests "
        "of its table. 'Could have seen' is the smallest true difference that 80 % of such experiments would find at the level of 0.05 "
        "over the number of these tests, given the share of images judged differently here. Networks of other seeds are other networks: "
        "each is compared with its own twin."
    )


def figure(networks: Sequence[Trained]) -> Figure:
    """Draw accuracy under the strongest attack (%) against zeros at the pool (%), a panel a protocol, a point a (network, attacker) pair.

    A colour is a forward pass; filled points were trained with sparse gradients at the pool, hollow ones with dense.
    """
    drawn = canvas(4.6)
    axes = drawn.subplots(1, len(MODES), sharey=True)
    for panel, mode in zip(axes, MODES, strict=True):
        attack = attacks_in(mode)[-1]
        for each in networks:
            for attacker in ATTACKERS:
                outcome = each.outcomes[mode][attacker][attack]
                share = wilson(sum(outcome), len(outcome))
                errors = [[100 * (share.value - share.low)], [100 * (share.high - share.value)]]
                look: dict[str, Any] = {
                    "color": COLOURS[each.pooling], "marker": "o" if each.weight_decay else "s", "markersize": 6,
                    "markerfacecolor": COLOURS[each.pooling] if each.training == SPARSE else "white",
                }  # fmt: skip
                panel.errorbar(100 * each.zeros[mode][attacker], 100 * share.value, errors, linewidth=0.6, **look)
                label = f"{each.pooling} forward, trained {each.training}{'' if each.weight_decay else ', no decay'}"
                panel.plot([], [], linestyle="none", label=label, **look)
        found = slopes(networks, mode, attack)
        panel.set_title(
            f"{TITLES[mode]}, {attack}\nslope {_signed(10 * found.value)} [{_signed(10 * found.low)}, {_signed(10 * found.high)}]"
        )
        panel.set_xlabel("zeros at the pool, attacker's gradient (%)")
    axes[0].set_ylabel("accuracy under attack (%)")
    drawn.suptitle("Robust accuracy against zeros (slope: points of accuracy for each 10 points of zeros, within networks, 95 % interval)")
    legend(drawn, labelled(axes), 4)
    return drawn


def network_table(networks: Sequence[Trained]) -> Table:
    """Return accuracies of each network: clean, each protocol's worst case over all attackers, and its audit's."""
    worst = [f"{TITLES[mode]}: {WORST}" for mode in MODES]
    header = ["network", "run", "images", "clean, %", *(f"{title}, %" for title in worst), "audit's worst case, %"]
    rows = [
        words([
            each.label, each.name, len(each.clean), _share(each.clean), *(_share(each.worst(mode)) for mode in MODES),
            "; ".join(f"{name} {text}" for name, text in each.audit.items()) or "not audited",
        ])
        for each in networks
    ]  # fmt: skip
    return Table("networks", header, rows)


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
            f"{_signed(100 * found.value)} [{_signed(100 * found.low)}, {_signed(100 * found.high)}]",
            f"{found.only_first} : {found.only_second}", f"{found.p:.3g}", f"{p:.3g}", reads,
            "nothing" if math.isnan(seen) else f"{100 * seen:.1f}",
        ]))  # fmt: skip
    return Table(name, header, rows)


def _pairs(
    networks: Sequence[Trained], attribute: str, values: tuple[object, object], free: Sequence[str] = ()
) -> Iterator[tuple[Trained, Trained]]:
    """Yield networks that differ in one attribute, and in those that follow from it."""
    for one in networks:
        for other in networks:
            equal = [name for name in ("pooling", "training", "weight_decay", "seed") if name not in (attribute, *free)]
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


def _right(text: str) -> list[bool]:
    return [sign == "1" for sign in text]


def points(effect: Pooled) -> str:
    """Return an effect in points with its interval.

    Example:
        >>> points(Pooled(0.012, -0.02, 0.044, 0.05, 2, 500))
        '+1.2 [-2.0, +4.4]'
    """
    return f"{_signed(100 * effect.value)} [{_signed(100 * effect.low)}, {_signed(100 * effect.high)}]"


def _share(outcome: Sequence[bool]) -> str:
    share = wilson(sum(outcome), len(outcome))
    return f"{100 * share.value:.1f} [{100 * share.low:.1f}, {100 * share.high:.1f}]"


def _signed(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{round(value, 1) + 0.0:+.1f}"

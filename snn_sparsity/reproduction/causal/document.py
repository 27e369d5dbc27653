"""The document of the causal experiment: answer, figure, networks, a table a question."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from matplotlib.figure import Figure

from snn_sparsity.audit.judge.statistics import wilson
from snn_sparsity.documents.blocks import Block, Heading, Picture, Table, words
from snn_sparsity.figures.drawing import BLUE, VERMILLION, canvas, labelled, legend
from snn_sparsity.reproduction.attackers import ATTACKERS, MODES, TITLES, attacks_in
from snn_sparsity.reproduction.causal.contrasts import QUESTIONS, contrast_table
from snn_sparsity.reproduction.causal.effects import EFFECTS, about_effects, effect_table, effects, slopes
from snn_sparsity.reproduction.causal.trained import SPARSE, WORST, Trained
from snn_sparsity.reproduction.paired import signed

COLOURS = {"max": BLUE, "avg": VERMILLION}
CAPTION = "Accuracy under the strongest attack of each protocol against zeros at the pooling's input; a point is a network and an attacker."


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
            f"{TITLES[mode]}, {attack}: {signed(10 * found.value)} points [{signed(low)}, {signed(high)}] of accuracy for each 10 "
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
    yield Picture("causal", lambda: figure(networks), CAPTION)
    if found := effects(networks):
        yield Heading(EFFECTS)
        yield about_effects(found)
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
                label = f"{each.pooling}, trained {each.training}{'' if each.weight_decay else ', no decay'}"
                panel.plot([], [], linestyle="none", label=label, **look)
        found = slopes(networks, mode, attack)
        panel.set_title(f"{TITLES[mode]}, {attack}\nslope {signed(10 * found.value)} [{signed(10 * found.low)}, {signed(10 * found.high)}]")
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


def _share(outcome: Sequence[bool]) -> str:
    return wilson(sum(outcome), len(outcome)).percent

"""Accuracy against robustness: every run in one picture, and how each came there over its epochs."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from snn_sparsity.figures.drawing import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    YELLOW,
    Look,
    canvas,
    labelled,
    legend,
    panels,
    percent_axis,
    whole_numbers,
)
from snn_sparsity.measure.names import accuracy_of
from snn_sparsity.protocols import Protocol
from snn_sparsity.reproduction.attack_settings import AttackSettings, attacks_of
from snn_sparsity.reproduction.paper import DATASETS, max_pooled, network_name, paper_rows
from snn_sparsity.reproduction.results import SeedGroup, pairs_of

COLOURS = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, YELLOW)
MARKERS = {("SEWResNet", 18): "o", ("SEWResNet", 34): "s", ("SEWResNet", 50): "^",
           ("SpikingResNet", 18): "v", ("SpikingResNet", 34): "D", ("SpikingResNet", 50): "P"}  # fmt: skip
PAPER_COLOUR = "#8c8c8c"
COLUMNS = 3


def tradeoff(protocol: Protocol, attacks: Sequence[AttackSettings], groups: Sequence[SeedGroup]) -> Figure:
    """Draw accuracy under attack against clean accuracy (%), a panel an attack; arrows lead from max to average pooling.

    The paper's points are grey. A marker is a network, a colour a dataset; average pooling is hollow.
    """
    figure = canvas(6.2)
    axes = figure.subplots(1, len(attacks), squeeze=False)[0]
    datasets = sorted({group.first.dataset for group in groups})
    colours = {dataset: COLOURS[place % len(COLOURS)] for place, dataset in enumerate(datasets)}
    for panel, attack in zip(axes, attacks, strict=True):
        if attack.column:
            _paper_points(panel, attack.column)
        for group in groups:
            _point(panel, group, attack, colours[group.first.dataset])
        for maximum, average in pairs_of(groups):
            _arrow(panel, maximum, average, attack, colours[maximum.first.dataset])
        panel.set_xlabel("clean accuracy (%)")
        panel.set_title(attack.label)
        panel.margins(0.08)
    axes[0].set_ylabel("accuracy under attack (%)")
    figure.suptitle(f"Accuracy against robustness; {protocol.title}")
    known = [Line2D([], [], color=colour, marker=".", linestyle="none", markersize=12, label=DATASETS.get(dataset, dataset))
             for dataset, colour in colours.items()]  # fmt: skip
    pools = [Line2D([], [], color=BLACK, marker="o", linestyle="none", markerfacecolor=face, label=f"{pool} pooling")
             for pool, face in (("max", BLACK), ("average", "none"))]  # fmt: skip
    legend(figure, [*known, *pools, *labelled(axes)], 5)
    return figure


def curves(protocol: Protocol, attacks: Sequence[AttackSettings], groups: Sequence[SeedGroup]) -> Figure:
    """Draw clean accuracy and that under each attack (%) over the epochs, a panel a group, a line a seed; the paper's are dotted."""
    rows = math.ceil(len(groups) / COLUMNS)
    columns = min(COLUMNS, len(groups))
    figure, axes = panels(rows, columns, 1.6 + 3 * rows, sharey=True)
    looks: dict[AttackSettings | None, Look] = {None: Look("clean", BLACK, "o")}
    looks |= {attack: Look(attack.label, COLOURS[place % len(COLOURS)], "s^vDP*"[place % 6]) for place, attack in enumerate(attacks)}
    for panel, group in zip(axes.flat, groups, strict=False):
        for attack, look in looks.items():
            _curves(panel, group, attack, look)
        dataset, network, depth, pool = group.first.setting
        panel.set_title(f"{DATASETS.get(dataset, dataset)}, {network_name(network, depth)} {pool}\n{group.marks}", parse_math=False)
        whole_numbers(panel, "epoch")
        panel.xaxis.set_tick_params(labelbottom=True)
    for panel in axes.flat[len(groups) :]:
        panel.set_axis_off()
    for row in axes:
        percent_axis(row[0], "accuracy (%)")
    figure.suptitle(f"Accuracy over the epochs; {protocol.title}")
    legend(figure, labelled(axes.flat), 4)
    return figure


def _marker(group: SeedGroup) -> str:
    _, network, depth, _ = group.first.setting
    return MARKERS.get((network, depth), "*")


def _point(axes: Axes, group: SeedGroup, attack: AttackSettings, colour: str) -> None:
    clean, attacked = group.accuracy(None), group.accuracy(attack)
    if clean is None or attacked is None:
        return
    _, network, depth, pool = group.first.setting
    # The colours are told apart by datasets, so that a network's entry in the legend is black.
    axes.plot([], [], _marker(group), color=BLACK, label=network_name(network, depth))
    spread = [0.0 if math.isnan(each.spread) else each.spread for each in (clean, attacked)]
    axes.errorbar(clean.mean, attacked.mean, spread[1], spread[0], fmt=_marker(group), color=colour, markersize=9,
                  markerfacecolor=colour if pool == "max" else "white", gid="point", zorder=3)  # fmt: skip


def _arrow(axes: Axes, maximum: SeedGroup, average: SeedGroup, attack: AttackSettings, colour: str) -> None:
    ends = [(group.accuracy(None), group.accuracy(attack)) for group in (maximum, average)]
    places = [(clean.mean, attacked.mean) for clean, attacked in ends if clean is not None and attacked is not None]
    if len(places) == 2:
        axes.annotate(
            "", places[1], places[0], arrowprops={"arrowstyle": "->", "color": colour, "linewidth": 1.5, "shrinkA": 6, "shrinkB": 6}
        )


def _paper_points(axes: Axes, column: str) -> None:
    for row in paper_rows(3):
        before = max_pooled(row)
        marker = MARKERS[row.network, row.depth]
        places = [(each.accuracy["clean"], each.accuracy[column]) for each in (before, row)]
        for (clean, attacked), face in zip(places, (PAPER_COLOUR, "white"), strict=True):
            axes.plot(clean, attacked, marker, color=PAPER_COLOUR, markerfacecolor=face, gid="paper", zorder=2)
        axes.annotate("", places[1], places[0], arrowprops={"arrowstyle": "->", "color": PAPER_COLOUR, "shrinkA": 4, "shrinkB": 4})
    spiking = [row for row in paper_rows(1) if row.network == "SpikingResNet"]
    for row in spiking:
        axes.plot(row.accuracy["clean"], row.accuracy[column], MARKERS[row.network, row.depth], color=PAPER_COLOUR, gid="paper", zorder=2)
    axes.plot([], [], "o", color=PAPER_COLOUR, label="the paper")


def _curves(axes: Axes, group: SeedGroup, attack: AttackSettings | None, look: Look) -> None:
    for result in group.results:
        names = {each: accuracy_of(name) for name, each in attacks_of(result.record).items()}
        name = accuracy_of("val") if attack is None else names.get(attack, "")
        curve = result.record.metrics.get(name, {})
        if curve:
            epochs = sorted(curve)
            axes.plot(epochs, [100 * curve[epoch].value for epoch in epochs], color=look.colour, marker=look.marker, markersize=4,
                      label=look.label, markevery=max(1, len(epochs) // 8), linewidth=1.2)  # fmt: skip
    column = "clean" if attack is None else attack.column
    rows = [row for table in (1, 2, 3) for row in paper_rows(table) if row.setting == group.first.setting]
    if column and rows:
        axes.axhline(rows[0].accuracy[column], color=look.colour, linestyle=":", linewidth=1)

"""What differs from layer to layer: the sparsity trail and the state of the neurons."""

import math
from collections.abc import Sequence

from matplotlib.figure import Figure

from snn_sparsity.figures.drawing import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    Look,
    labelled,
    legend,
    mark_missing,
    panels,
    percent_axis,
    title,
    whole_numbers,
)
from snn_sparsity.measure import names
from snn_sparsity.runs.curves import Run

CORRELATION = f"{names.TRAIL_CORRELATION}/pearson_batches_"
PAIRS = {
    "gradients": Look("zeros of the weight gradient", BLUE, "o"),
    "weights": Look("zeros of the weights", ORANGE, "s"),
}
SEEN = {
    names.SURROGATE_VANISHING: Look("vanishing degree", BLUE, "o"),
    names.SURROGATE_UNSEEN: Look("unseen by the surrogate", VERMILLION, "D"),
}
FIRING = {
    names.SURROGATE_FIRING_RATE: Look("firing rate", GREEN, "^"),
    names.SURROGATE_SILENT: Look("silent neurons", BLACK, "s"),
    names.SURROGATE_ALWAYS: Look("always-firing neurons", PURPLE, "P"),
}
DISTANCE = {names.SURROGATE_DISTANCE: Look("distance to the threshold", SKY, "v")}


def trail(runs: Sequence[Run]) -> Figure:
    """Draw how zeros of weights and their gradients go with zeros of the input gradient, by depth at the last epoch.

    Pearson's correlation over batches with its 95 % interval; a row is a pair, a column is a run.
    """
    pairs = [pair for pair in PAIRS if any(run.operations(f"{CORRELATION}value/{pair}/") for run in runs)]
    figure, axes = panels(len(pairs), len(runs), 1.5 + 3 * len(pairs), sharey=True)
    for row, pair in zip(axes, pairs, strict=True):
        look = PAIRS[pair]
        for panel, run in zip(row, runs, strict=True):
            found = run.operations(f"{CORRELATION}value/{pair}/")
            depths = [operation.depth for operation in found.values()]
            value, low, high = (run.last(f"{CORRELATION}{end}/{pair}/") for end in ("value", "low", "high"))
            values = [value[name] for name in found]
            panel.axhline(0, color=BLACK, linewidth=0.8)
            for name, depth in zip(found, depths, strict=True):
                ends = [end.get(name.replace("_value/", f"_{which}/", 1), math.nan) for which, end in (("low", low), ("high", high))]
                panel.plot([depth] * 2, ends, color=look.colour, linewidth=1.5, marker="_", markersize=6, gid="interval")
            panel.plot(depths, values, look.marker, color=look.colour, label=look.label, gid=pair)
            mark_missing(panel, depths, values, "undefined (no spread)")
        row[0].set_ylabel(f"{look.label}:\nPearson's r")
        row[0].set_ylim(-1.12, 1.08)
    for column, run in zip(axes.T, runs, strict=True):
        title(column[0], run, f"{CORRELATION}value/", len(runs))
        whole_numbers(column[-1], "depth of the operation")
    figure.suptitle("Correlation with the zeros of the input gradient, over batches, with 95 % interval; weights that an image can reach")
    legend(figure, labelled(axes.flat))
    return figure


def surrogate(runs: Sequence[Run]) -> Figure:
    """Draw what the surrogate sees of each neuron layer and how it fires, by depth at the last epoch, a column a run."""
    figure, axes = panels(3, len(runs), 9)
    for column, run in zip(axes.T, runs, strict=True):
        for panel, series, scale in zip(column, (SEEN, FIRING, DISTANCE), (100, 100, 1), strict=True):
            for statistic, look in series.items():
                found, last = run.operations(f"{statistic}/"), run.last(f"{statistic}/")
                depths, values = [operation.depth for operation in found.values()], [scale * last[name] for name in found]
                if depths:
                    panel.plot(depths, values, color=look.colour, marker=look.marker, linewidth=1, label=look.label)
                    mark_missing(panel, depths, values, "undefined")
        title(column[0], run, names.SATURATION, len(runs))
        whole_numbers(column[-1], "depth of the neuron layer")
    percent_axis(axes[0, 0], "vanishing degree,\nshare of entries (%)")
    percent_axis(axes[1, 0], "spikes per step,\nshare of neurons (%)")
    axes[2, 0].set_ylabel("mean $|u - V_{th}|$\n(membrane potential)")
    axes[2, 0].set_ylim(bottom=0)
    figure.suptitle("Surrogate gradient and firing of every neuron layer")
    handles = labelled(axes.flat)
    # With an entry for what is undefined, one row would be wider than the figure.
    legend(figure, handles, 6 if len(handles) <= 6 else 4)
    return figure

"""The paper's Figures 1 and 3, and how they come about over the epochs."""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from snn_sparsity.figures.drawing import (
    GREY,
    KIND_LOOKS,
    kind_handles,
    labelled,
    legend,
    mark_missing,
    panels,
    percent_axis,
    positive,
    title,
    whole_numbers,
)
from snn_sparsity.measure.names import GRAD_NORM, GRAD_ZERO
from snn_sparsity.runs.curves import LoggedOperation, Run

PROTOCOL = "clean spikes, BatchNorm eval"


def gradients(runs: Sequence[Run]) -> Figure:
    """Draw zeros (%) and L2 norm (log axis) of each operation's input gradient at the last epoch, by depth, a column a run."""
    figure, axes = panels(2, len(runs), 7.5)
    for column, run in zip(axes.T, runs, strict=True):
        for panel, statistic in zip(column, (GRAD_ZERO, GRAD_NORM), strict=True):
            _profile(panel, run, statistic)
        title(column[0], run, f"{GRAD_ZERO}/", len(runs))
        whole_numbers(column[1], "depth of the operation")
    percent_axis(axes[0, 0], "zeros in the\ninput gradient (%)")
    axes[1, 0].set_ylabel("L2 norm of the input gradient\n(nats per unit of input)")
    figure.suptitle(f"Gradient at the input of every operation, {PROTOCOL}")
    kinds = {operation.kind for run in runs for operation in run.operations(f"{GRAD_ZERO}/").values()}
    legend(figure, [*kind_handles(kinds), *labelled(axes.flat)], 8)
    return figure


def _profile(axes: Axes, run: Run, statistic: str) -> None:
    prefix = f"{statistic}/"
    listed, last = run.operations(prefix), run.last(prefix)
    depths = [operation.depth for operation in listed.values()]
    values = [last[name] for name in listed]
    if statistic == GRAD_NORM:
        axes.set_yscale("log")
        values, missing = positive(values), "norm 0 or not finite"
    else:
        values, missing = [100 * value for value in values], "undefined"
    axes.plot(depths, values, color=GREY, linewidth=1, zorder=1)
    for kind, look in KIND_LOOKS.items():
        chosen = [place for place, operation in enumerate(listed.values()) if operation.kind == kind]
        if chosen:
            axes.plot([depths[place] for place in chosen], [values[place] for place in chosen], look.marker, color=look.colour,
                      markersize=6, zorder=3, gid=kind)  # fmt: skip
    mark_missing(axes, depths, values, missing)


def zeros_over_epochs(runs: Sequence[Run]) -> Figure:
    """Draw zeros (%) of the input gradient as a heat map, depth by epoch, a panel a run; grey is what was not measured."""
    listed = [
        # A surrogate has the depth of its neuron.
        {name: operation for name, operation in run.operations(f"{GRAD_ZERO}/").items() if operation.kind != "surrogate"}
        for run in runs
    ]
    epochs = sorted({epoch for run, names in zip(runs, listed, strict=True) for name in names for epoch in run.values[name]})
    depths = 1 + max(operation.depth for names in listed for operation in names.values())
    figure, axes = panels(1, len(runs), 7.5)
    colours = matplotlib.colormaps["cividis"].with_extremes(bad=GREY)
    gaps = False
    for panel, run, names in zip(axes[0], runs, listed, strict=True):
        zeros = _zeros(run, names, depths, epochs)
        gaps |= bool(np.isnan(zeros).any())
        mesh = panel.pcolormesh(zeros, cmap=colours, vmin=0, vmax=100)
        title(panel, run, "", len(runs))
        panel.grid(visible=False)
        shown = range(0, len(epochs), math.ceil(len(epochs) / 10))
        panel.set_xticks([place + 0.5 for place in shown], [str(epochs[place]) for place in shown])
        panel.set_yticks([depth + 0.5 for depth in range(0, depths, 5)], [str(depth) for depth in range(0, depths, 5)])
        panel.set_xlabel("epoch")
        _kind_strip(panel, list(names.values()))
    axes[0, 0].set_ylabel("depth of the operation")
    figure.colorbar(mesh, ax=axes, label="zeros in the input gradient (%)", aspect=30, pad=0.03)
    figure.suptitle(f"Zeros in the input gradient of every operation, {PROTOCOL}")
    kinds = kind_handles(operation.kind for names in listed for operation in names.values())
    legend(figure, [*kinds, Patch(facecolor=GREY, label="not measured")] if gaps else kinds, 7)
    return figure


def _zeros(run: Run, names: dict[str, LoggedOperation], depths: int, epochs: list[int]) -> NDArray[Any]:
    """Return zeros in percent, [depths,epochs], NaN where there is no value."""
    zeros = np.full((depths, len(epochs)), math.nan)
    for name, operation in names.items():
        for epoch, value in run.values[name].items():
            zeros[operation.depth, epochs.index(epoch)] = 100 * value
    return zeros


def _kind_strip(axes: Axes, operations: list[LoggedOperation]) -> None:
    """Show the kind of each row beside it."""
    for kind, look in KIND_LOOKS.items():
        rows = [operation.depth + 0.5 for operation in operations if operation.kind == kind]
        # An empty line outside of the panel would upset the layout.
        if rows:
            axes.plot([1.02] * len(rows), rows, look.marker, color=look.colour, markersize=5, clip_on=False,
                      transform=axes.get_yaxis_transform())  # fmt: skip

"""Where the zeros of the input gradients come from."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from snn_sparsity.figures.drawing import (
    BLACK,
    BLUE,
    KIND_LOOKS,
    ORANGE,
    SKY,
    VERMILLION,
    YELLOW,
    canvas,
    kind_handles,
    labelled,
    legend,
    mark_missing,
    percent_axis,
    title,
    whole_numbers,
)
from snn_sparsity.figures.gradients import PROTOCOL
from snn_sparsity.measure.names import POOL_TIE_SHARED_ZERO, POOL_WINDOWS, WINDOW_COUNTS, ZERO_ORIGIN, mean_of
from snn_sparsity.runs.curves import KINDS, Run


class Cause(NamedTuple):
    """A cause of zeros and how it is drawn.

    Attributes:
        label: Its name in the legend.
        colour: Of the bar.
        hatch: Of the bar.
    """

    label: str
    colour: str
    hatch: str


CAUSES = {
    "sample": Cause("whole sample", BLACK, ""),
    "time_step": Cause("whole time step", VERMILLION, "///"),
    "channel": Cause("whole channel", ORANGE, "\\\\\\"),
    "unread": Cause("position never read (stride)", YELLOW, "..."),
    "unselected": Cause("not selected by max pooling", BLUE, "xxx"),
    "rest": Cause("unstructured", SKY, ""),
}
"""From the bottom of a bar to its top; together they are all zeros."""


def origin(runs: Sequence[Run]) -> Figure:
    """Draw the causes of zeros (%) at the last epoch as stacked bars, by kind and by operation, a row a run."""
    figure = canvas(1.0 + 4.2 * len(runs))
    axes = figure.subplots(len(runs), 2, sharex="col", sharey=True, squeeze=False, width_ratios=[1, 3.2])
    kinds = [kind for kind in KINDS if any(run.last(f"{mean_of(ZERO_ORIGIN)}/{cause}/{kind}") for run in runs for cause in CAUSES)]
    for (by_kind, by_operation), run in zip(axes, runs, strict=True):
        _stack(
            by_kind,
            list(range(len(kinds))),
            [[(run.curve(f"{mean_of(ZERO_ORIGIN)}/{cause}/{kind}")[1] or [0.0])[-1] for kind in kinds] for cause in CAUSES],
        )
        by_kind.set_xticks(range(len(kinds)), kinds, rotation=30)
        by_kind.xaxis.set_tick_params(labelbottom=True)
        by_kind.set_title("mean of each kind")
        _operations(by_operation, run)
        title(by_operation, run, f"{ZERO_ORIGIN}/", 1)
    for row in axes:
        percent_axis(row[0], "share of all entries (%)")
    figure.suptitle(f"Why the input gradient is zero, {PROTOCOL}")
    patches = [Patch(facecolor=cause.colour, hatch=cause.hatch, edgecolor="white", label=cause.label) for cause in CAUSES.values()]
    handles = [*patches, *kind_handles(kinds), *labelled(axes.flat)]
    legend(figure, handles, math.ceil(len(handles) / 2))
    return figure


def _operations(axes: Axes, run: Run) -> None:
    places = sorted({operation for cause in CAUSES for operation in run.operations(f"{ZERO_ORIGIN}/{cause}/").values()})
    shares = []
    for cause in CAUSES:
        last = run.last(f"{ZERO_ORIGIN}/{cause}/")
        named = {operation: last[name] for name, operation in run.operations(f"{ZERO_ORIGIN}/{cause}/").items()}
        shares.append([named.get(place, 0.0) for place in places])
    _stack(axes, [place.depth for place in places], shares)
    for kind, look in KIND_LOOKS.items():
        depths = [place.depth for place in places if place.kind == kind]
        axes.plot(depths, [-2] * len(depths), look.marker, color=look.colour, markersize=4)
    lines = ["depth of the operation"]
    for name, pool in run.operations(f"{POOL_TIE_SHARED_ZERO}/").items():
        tag = name.removeprefix(f"{POOL_TIE_SHARED_ZERO}/")
        counts = [_percent(run, f"{POOL_WINDOWS}/{count}/{tag}") for count in WINDOW_COUNTS]
        lines.append(f"{pool.depth} ({pool.path}): windows with no spike {counts[0]}, one {counts[1]}, several {counts[2]};\n"
                     f"zeros if tied maxima shared the gradient {_percent(run, name)}")  # fmt: skip
    whole_numbers(axes, "\n".join(lines))
    axes.xaxis.set_tick_params(labelbottom=True)


def _stack(axes: Axes, places: list[int], shares: list[list[float]]) -> None:
    """Draw one bar a place, from shares [causes,places]."""
    bottoms = np.zeros(len(places))
    for (name, cause), share in zip(CAUSES.items(), shares, strict=True):
        heights = 100 * np.asarray(share)
        axes.bar(places, heights, 0.85, bottoms, color=cause.colour, hatch=cause.hatch, edgecolor="white", linewidth=0, gid=name)
        bottoms = bottoms + heights
    mark_missing(axes, places, list(bottoms), "undefined", height=0.07)


def _percent(run: Run, name: str) -> str:
    _, values = run.curve(name)
    return f"{100 * values[-1]:.1f} %" if values and math.isfinite(values[-1]) else "?"

"""What all figures share: colours that colour-blind readers can tell apart, panels, axes, legends."""

import io
import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from snn_sparsity.runs.curves import KINDS, Run

# Okabe and Ito's palette; every colour comes with a marker or hatch of its own.
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILLION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
GREY = "#d9d9d9"

STYLE: list[str | dict[str, Any]] = [
    "default",
    {"font.size": 11, "axes.titlesize": 11, "legend.fontsize": 11, "axes.grid": True, "axes.axisbelow": True,
     "grid.color": "#e5e5e5", "hatch.linewidth": 0.6, "legend.frameon": False},
]  # fmt: skip
"""Matplotlib's own settings, whatever the user's are, so that the same run gives the same picture everywhere."""

WIDTH, DPI = 12.0, 120
MISSING = "missing"


class Look(NamedTuple):
    """How a series is drawn.

    Attributes:
        label: Its name in the legend.
        colour: Any colour of matplotlib.
        marker: Any marker of matplotlib.
    """

    label: str
    colour: str
    marker: str


KIND_LOOKS = {
    kind: Look(kind, colour, marker)
    for kind, colour, marker in zip(KINDS, (BLACK, BLUE, ORANGE, GREEN, SKY, VERMILLION, PURPLE), "*os^vDP", strict=True)
}


def canvas(height: float) -> Figure:
    """Return an empty figure, 1440 pixels wide and ``height`` inches high."""
    return Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG file; the same figure gives the same bytes."""
    file = io.BytesIO()
    with style.context(STYLE, after_reset=True):
        figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def panels(rows: int, columns: int, height: float, *, sharey: bool | Literal["row"] = "row") -> tuple[Figure, Any]:
    """Return a canvas with an array [rows,columns] of axes."""
    figure = canvas(height)
    return figure, figure.subplots(rows, columns, sharex=True, sharey=sharey, squeeze=False)


def title(axes: Axes, run: Run, prefix: str, columns: int, more: str = "") -> None:
    """Write the run's name over its panel, and the epoch of the values that begin with ``prefix`` where one is given."""
    epoch = f", epoch {run.last_epoch(prefix)}" if prefix else ""
    # textwrap breaks lines at blanks alone, and a name has none.
    pieces = textwrap.wrap((run.name + epoch).replace("/", "/ ").replace("+", "+ "), 100 // columns)
    lines = [piece.replace("/ ", "/").replace("+ ", "+") for piece in pieces] + ([more] if more else [])
    axes.set_title("\n".join(lines), parse_math=False)


def percent_axis(axes: Axes, label: str) -> None:
    """Make the y axis one of percent, with room for markers at both ends."""
    axes.set_ylabel(label)
    axes.set_ylim(-4, 104)
    axes.set_yticks(range(0, 101, 25))


def whole_numbers(axes: Axes, label: str) -> None:
    """Make the x axis one of depths or epochs."""
    axes.set_xlabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def positive(values: Sequence[float]) -> list[float]:
    """Return the values, with NaN for what has no place on a logarithmic axis.

    Example:
        >>> positive([2.0, 0.0, math.inf])
        [2.0, nan, nan]
    """
    return [value if 0 < value < math.inf else math.nan for value in values]


def mark_missing(axes: Axes, depths: Sequence[float], values: Sequence[float], label: str, height: float = 0.025) -> None:
    """Put a small x near the lower edge wherever a value is NaN, so that a gap is seen to be one."""
    missing = [depth for depth, value in zip(depths, values, strict=True) if math.isnan(value)]
    if missing:
        heights = np.full(len(missing), height)
        axes.plot(missing, heights, "x", transform=axes.get_xaxis_transform(), color=VERMILLION, label=label, zorder=4, gid=MISSING)


def handle(look: Look) -> Line2D:
    """Return the legend's entry of a look that is drawn as markers alone."""
    return Line2D([], [], color=look.colour, marker=look.marker, linestyle="none", label=look.label)


def kind_handles(kinds: Iterable[str]) -> list[Line2D]:
    """Return the legend's entries of these kinds of operations, in their fixed order."""
    present = set(kinds)
    return [handle(look) for kind, look in KIND_LOOKS.items() if kind in present]


def legend(figure: Figure, handles: Sequence[Any], columns: int = 6) -> None:
    """Draw a legend outside of all panels."""
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, columnspacing=1.4, handletextpad=0.5)


def labelled(axes: Iterable[Axes]) -> list[Any]:
    """Return one handle for each label that is used in any of the axes, in the order of first use; what is missing comes last."""
    found: dict[str, Any] = {}
    for each in axes:
        for artist, label in zip(*each.get_legend_handles_labels(), strict=True):
            found.setdefault(label, artist)
    return sorted(found.values(), key=lambda artist: bool(artist.get_gid() == MISSING))

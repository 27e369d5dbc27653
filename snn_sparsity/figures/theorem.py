"""Theorem 1 of Liu et al. (2024), as the paper cites it, against what was measured."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from snn_sparsity.figures.drawing import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    Look,
    labelled,
    legend,
    mark_missing,
    panels,
    positive,
    title,
    whole_numbers,
)
from snn_sparsity.measure.names import INSIDE_BOUNDS, MEASURED_RATIO, PREDICTED_RATIO, UPPER_BOUND
from snn_sparsity.runs.curves import Run

LOWER_BOUND = 3.0
MEDIAN = f"/{PREDICTED_RATIO}_median"
RATIOS = {
    UPPER_BOUND: Look("upper bound, 3 ‖g‖₀ (g: gradient)", GREEN, "^"),
    PREDICTED_RATIO: Look("predicted ratio", BLUE, "o"),
    MEASURED_RATIO: Look("measured ratio", ORANGE, "s"),
}


def bound(runs: Sequence[Run]) -> Figure:
    """Draw the vulnerability ratio and its bounds over the epochs (log axis): medians, and bands from quartile to quartile.

    A row is a probe, named as in the run; a column is a run.
    """
    probes = sorted({name.removesuffix(MEDIAN) for run in runs for name in run.values if name.endswith(MEDIAN)})
    figure, axes = panels(len(probes), len(runs), 1.5 + 4.5 * len(probes), sharey=True)
    for row, probe in zip(axes, probes, strict=True):
        for panel, run in zip(row, runs, strict=True):
            _ratios(panel, run, probe)
            verdict = probe
            _, inside = run.curve(f"{probe}/{INSIDE_BOUNDS}")
            if inside:
                share = "undefined share" if math.isnan(inside[-1]) else f"{100 * inside[-1]:.1f} %"
                verdict = f"{probe}: {share} inside the bounds at the last epoch"
            title(panel, run, "", len(runs), verdict)
        row[0].set_ylabel("adversarial / random vulnerability")
    for panel in axes[-1]:
        whole_numbers(panel, "epoch")
    figure.suptitle("Theorem 1: 3 ≤ adversarial / random vulnerability ≤ 3 ‖g‖₀; medians over images, with quartiles")
    legend(figure, labelled(axes.flat), 5)
    return figure


def _ratios(axes: Axes, run: Run, probe: str) -> None:
    axes.set_yscale("log")
    for place, (ratio, look) in enumerate(RATIOS.items()):
        epochs, medians = run.curve(f"{probe}/{ratio}_median")
        if not epochs:
            continue
        # Staggered and open markers, so that curves on top of each other are both seen.
        every = math.ceil(len(epochs) / 25)
        axes.plot(epochs, positive(medians), color=look.colour, marker=look.marker, label=look.label, markerfacecolor="none",
                  markevery=(place * every // len(RATIOS), every))  # fmt: skip
        mark_missing(axes, epochs, positive(medians), "median 0 or not finite")
        lower, upper = (run.values.get(f"{probe}/{ratio}_{quartile}", {}) for quartile in ("q25", "q75"))
        both = [epoch for epoch in epochs if epoch in lower and epoch in upper]
        ends = positive([lower[epoch] for epoch in both]), positive([upper[epoch] for epoch in both])
        axes.fill_between(both, *ends, color=look.colour, alpha=0.2, linewidth=0, gid=ratio)
        if len(both) == 1:  # a band without width
            axes.vlines(both, *ends, color=look.colour, alpha=0.3, linewidth=12)
    axes.axhline(LOWER_BOUND, color=BLACK, linestyle="--", label="lower bound, 3")

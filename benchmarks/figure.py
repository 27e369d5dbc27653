"""The picture of a benchmark: how many times faster, and how a training step grows."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.table import TARGETS

OURS, TARGET = "#0072B2", "#D55E00"


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw what was measured.

    Args:
        result: What ``benchmarks.run`` writes.
        path: PNG to write.
    """
    figure = Figure(figsize=(12, 4.5), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2)
    _ratios(left, result)
    _growth(right, result)
    figure.savefig(path)


def _ratios(axes: Axes, result: dict[str, Any]) -> None:
    arms = {arm: sides for arm, sides in result["arms"].items() if "baseline" in sides}
    ratios = [sides["baseline"]["median"] / sides["ours"]["median"] for sides in arms.values()]
    axes.barh(list(arms), ratios, color=OURS)
    axes.axvline(1, color="black", linewidth=1)
    for place, arm in enumerate(arms):
        if target := TARGETS[result["work"]["device"]].get(arm):
            axes.plot(
                [target], [place], marker="D", color=TARGET, linestyle="", label="target" if not axes.get_legend_handles_labels()[1] else ""
            )
    axes.invert_yaxis()
    axes.set_xlabel("times faster than a plain SpikingJelly loop")
    axes.set_xscale("log")
    axes.legend(frameon=False)


def _growth(axes: Axes, result: dict[str, Any]) -> None:
    curves: dict[str, dict[float, float]] = {}
    for arm, sides in result["arms"].items():
        if arm.startswith("growth: "):
            name, _, value = arm.removeprefix("growth: ").partition("=")
            curves.setdefault(name, {})[float(value)] = sides["ours"]["median"]
    for (name, curve), marker in zip(curves.items(), "osD^", strict=False):
        first = min(curve)
        axes.plot([value / first for value in curve], list(curve.values()), marker=marker, label=f"{name} (from {first:g})")
    axes.set_xlabel("times the smallest")
    axes.set_ylabel("seconds")
    axes.set_ylim(bottom=0)
    if curves:
        axes.legend(frameon=False)

"""Figures of an audit, narrow enough for a telephone; protocols never share a panel, audits are told apart by colour and marker.

To be drawn in drawing.STYLE.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from snn_sparsity.audit.statistics import Share, wilson
from snn_sparsity.figures.drawing import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILLION, Look, labelled, legend
from snn_sparsity.report.audit_rows import LEVELS, Judged, broken, tried

WIDTH, DPI = 5.4, 160
_LOOKS = list(zip((BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY), "os^DPv", ("", "//", "..", "xx", "\\\\", "++"), strict=True))

Cases = Mapping[str, Sequence[Judged]]
"""By protocol: the audits in which it was looked at."""


def accuracies(cases: Cases) -> Figure:
    """Draw accuracy (%) without an attack, under the attack under audit, the standard ones, and all, with 95 % intervals."""
    figure, axes = _panels(list(cases), [1.1 + 0.28 * len(LEVELS) * _crowd(len(same)) for same in cases.values()])
    for panel, same in zip(axes, cases.values(), strict=True):
        panel.set_title(same[0].description, loc="left", parse_math=False)
        for place, case in enumerate(same):
            _levels(panel, case, place, _offset(place, len(same)))
        _chance(panel.axvline, same)
        _by_rows(panel, list(LEVELS.values()))
        panel.set_xlim(-3, 117)
        panel.set_xticks(range(0, 101, 25))
    axes[-1].set_xlabel("accuracy (%), with 95 % interval")
    legend(figure, labelled(axes), 4)
    return figure


def _levels(axes: Axes, case: Judged, place: int, offset: float) -> None:
    measured = [(row, Share(**case.verdict["accuracy"][level])) for row, level in enumerate(LEVELS) if level in case.verdict["accuracy"]]
    rows = [row + offset for row, _ in measured]
    look = _look(case, place)
    axes.plot([100 * share.value for _, share in measured], rows, color=look.colour, linewidth=1, alpha=0.5)
    for row, (_, share) in zip(rows, measured, strict=True):
        axes.plot([100 * share.low, 100 * share.high], [row, row], color=look.colour, linewidth=2, marker="|", markersize=7, gid="interval")
        axes.annotate(f"{100 * share.value:.1f}", (100 * share.high, row), (6, 0), textcoords="offset points", va="center", fontsize=10)
    axes.plot([100 * share.value for _, share in measured], rows, look.marker, color=look.colour, label=look.label, gid=case.name)


def eps_sweep(cases: Cases) -> Figure | None:
    """Draw accuracy (%) over eps in grey levels of 255, with 95 % intervals; None if no audit swept it."""
    swept = {name: [case for case in same if _sweep(case)] for name, same in cases.items()}
    swept = {name: same for name, same in swept.items() if same}
    if not swept:
        return None
    figure, axes = _panels(list(swept), [2.4] * len(swept))
    for panel, (name, same) in zip(axes, swept.items(), strict=True):
        panel.set_title(same[0].description, loc="left", parse_math=False)
        for case in same:
            _curve(panel, case, list(cases[name]).index(case))
        for eps in {case.audit["settings"]["eps"] for case in same}:
            panel.axvline(255 * eps, color=BLACK, linestyle="--", linewidth=1, label="eps of the audit")
        _chance(panel.axhline, same)
        _by_eps(panel, same)
    axes[-1].set_xlabel("eps (levels of 255)")
    legend(figure, labelled(axes), 4)
    return figure


def _sweep(case: Judged) -> list[tuple[float, Share]]:
    """Return levels of 255 and accuracies, ascending."""
    samples = len(case.audit["clean"])
    points = case.protocol.get("diagnostics", {}).get("eps_sweep", [])
    return sorted((255 * point["eps"], wilson(round(point["accuracy"] * samples), samples)) for point in points)


def _curve(axes: Axes, case: Judged, place: int) -> None:
    look, curve = _look(case, place), _sweep(case)
    levels = [level for level, _ in curve]
    ends = np.array([[share.low, share.high] for _, share in curve])
    axes.fill_between(levels, *(100 * ends.T), color=look.colour, alpha=0.2, linewidth=0)
    axes.plot(levels, [100 * share.value for _, share in curve], color=look.colour, marker=look.marker, label=look.label, gid=case.name)


def _by_eps(axes: Axes, same: Sequence[Judged]) -> None:
    levels = sorted({round(level) for case in same for level, _ in _sweep(case)})
    axes.set_xscale("symlog", base=2, linthresh=1)
    axes.set_xticks(levels, [str(level) for level in levels])
    axes.minorticks_off()
    axes.set_xlim(-0.3, 350)
    axes.set_ylim(-4, 104)
    axes.set_ylabel("accuracy (%)")


def broken_samples(same: Sequence[Judged]) -> Figure | None:
    """Draw how many samples each attack of a protocol was given and how many it broke; None if there are none.

    The groups after "standard" are given what survives it, and inside a group what its earlier attacks left.
    """
    rows = _attack_rows(same)
    if not rows:
        return None
    figure, [axes] = _panels([""], [1.1 + sum(0.26 * _crowd(len(same)) if name else 0.3 for _, name in rows)])
    axes.set_title(same[0].description, loc="left", parse_math=False)
    for place, case in enumerate(same):
        _bars(axes, case, place, rows, len(same))
    _by_rows(axes, [_short(name) if name else group for group, name in rows])
    for text, (_, name) in zip(axes.get_yticklabels(), rows, strict=True):
        text.set_fontweight("normal" if name else "bold")
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.25)
    axes.set_xlim(left=0)
    axes.set_xlabel("samples")
    legend(figure, [*(_patch(case, place) for place, case in enumerate(same)), Patch(facecolor=GREY, label="attacked")], 4)
    return figure


def _attack_rows(same: Sequence[Judged]) -> list[tuple[str, str]]:
    """Return (group, attack) of the attacks that count and ran in any audit, and a row (group, "") over each group."""
    groups: dict[str, dict[str, None]] = {}
    for outcome in (outcome for case in same for outcome in _done(case)):
        groups.setdefault(outcome["group"], {})[outcome["name"]] = None
    return [(group, name) for group, names in groups.items() for name in ("", *names)]


def _done(case: Judged) -> list[Mapping[str, Any]]:
    return [outcome for outcome in case.protocol["attacks"] if outcome["status"] == "done" and outcome["group"] != "sweep"]


def _bars(axes: Axes, case: Judged, place: int, rows: list[tuple[str, str]], audits: int) -> None:
    (colour, _, hatch), height = _LOOKS[place % len(_LOOKS)], 0.8 / audits
    found = [(rows.index((outcome["group"], outcome["name"])) + _offset(place, audits), outcome) for outcome in _done(case)]
    places = [row for row, _ in found]
    counts = [broken(outcome) for _, outcome in found]
    axes.barh(places, [tried(outcome) for _, outcome in found], height, color=GREY)
    axes.barh(places, counts, height, color=colour, hatch=hatch, edgecolor="white", linewidth=0)
    for row, count, (_, outcome) in zip(places, counts, found, strict=True):
        axes.annotate(f"{count} of {tried(outcome)}", (tried(outcome), row), (4, 0), textcoords="offset points", va="center", fontsize=9)


def _patch(case: Judged, place: int) -> Patch:
    colour, _, hatch = _LOOKS[place % len(_LOOKS)]
    return Patch(facecolor=colour, hatch=hatch, edgecolor="white", linewidth=0, label=f"{case.mark} broke".strip())


def _chance(line: Callable[..., object], same: Sequence[Judged]) -> None:
    for chance in {case.verdict["chance"] for case in same} - {None}:
        line(100 * chance, color=BLACK, linestyle=":", linewidth=1, label="chance")


def _panels(names: Sequence[str], heights: Sequence[float]) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(WIDTH, 0.5 + sum(heights)), dpi=DPI, layout="constrained")
    axes = figure.subplots(len(names), 1, squeeze=False, sharex=True, height_ratios=heights)
    return figure, list(axes[:, 0])


def _look(case: Judged, place: int) -> Look:
    colour, marker, _ = _LOOKS[place % len(_LOOKS)]
    return Look(case.mark or "accuracy", colour, marker)


def _offset(place: int, audits: int) -> float:
    """Return where in its row, one high, an audit is drawn: the first on top."""
    return 0.8 * ((place + 0.5) / audits - 0.5)


def _crowd(audits: int) -> float:
    return max(1.0, math.sqrt(audits))


def _by_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.set_ylim(len(names) - 0.4, -0.6)


def _short(name: str) -> str:
    return name if len(name) <= 28 else f"{name[:27]}…"

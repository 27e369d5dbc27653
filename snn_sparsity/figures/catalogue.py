"""The figures by name: what each needs, and how it is drawn."""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from matplotlib import style
from matplotlib.figure import Figure

from snn_sparsity.figures.drawing import STYLE
from snn_sparsity.figures.gradients import gradients, zeros_over_epochs
from snn_sparsity.figures.layers import CORRELATION, PAIRS, surrogate, trail
from snn_sparsity.figures.origin import CAUSES, origin
from snn_sparsity.figures.theorem import MEDIAN, bound
from snn_sparsity.measure.names import GRAD_ZERO, SATURATIONS, ZERO_ORIGIN
from snn_sparsity.runs.curves import OPERATION, Run
from snn_sparsity.validation import InputError, require_choice


class _Kind(NamedTuple):
    draw: Callable[[Sequence[Run]], Figure]
    needs: str
    probe: str


_KINDS = {
    "gradients": _Kind(gradients, f"{GRAD_ZERO}/{OPERATION}", "GradientSparsity"),
    "zeros_over_epochs": _Kind(zeros_over_epochs, f"{GRAD_ZERO}/{OPERATION}", "GradientSparsity"),
    "origin": _Kind(origin, f"{ZERO_ORIGIN}/({'|'.join(CAUSES)})/{OPERATION}", "SparsityOrigin"),
    "bound": _Kind(bound, f".+{MEDIAN}", "VulnerabilityRatio"),
    "trail": _Kind(trail, f"{CORRELATION}value/({'|'.join(PAIRS)})/{OPERATION}", "GradientTrail"),
    "surrogate": _Kind(surrogate, f"({'|'.join(SATURATIONS)})/{OPERATION}", "SurrogateSaturation"),
}

FIGURES: tuple[str, ...] = tuple(_KINDS)
"""Names of all figures, in the order in which they are drawn."""


def available(run: Run) -> list[str]:
    """Return the names of the figures that the run has metrics for, in the order of FIGURES.

    Probes with another setting than their default (adversarial spikes, BatchNorm in batch mode) log under other names, and
    are in no figure.
    """
    return [figure for figure, kind in _KINDS.items() if any(re.fullmatch(kind.needs, name) for name in run.values)]


def figure_of(name: str, runs: Sequence[Run]) -> Figure:
    """Draw a figure of one run, or of several beside each other on the same axes.

    Args:
        name: One of FIGURES.
        runs: At least one.

    Returns:
        A figure of its own, unknown to pyplot; 1440 pixels wide.

    Raises:
        InputError: For an unknown name, or a run without the metrics that the figure needs.
    """
    require_choice("figure", name, FIGURES)
    for run in runs:
        if name not in available(run):
            raise InputError(
                f"{run.path} has no metrics for the figure {name!r}: train with the probe {_KINDS[name].probe} "
                "(in its default setting: clean spikes, BatchNorm eval)"
            )
    with style.context(STYLE, after_reset=True):
        return _KINDS[name].draw(runs)


def common(runs: Sequence[Run]) -> list[str]:
    """Return the names of the figures that every run has metrics for.

    Raises:
        InputError: If there are none.
    """
    names = [name for name in FIGURES if all(name in available(run) for run in runs)]
    if not names:
        probes = ", ".join(dict.fromkeys(kind.probe for kind in _KINDS.values()))
        which = " and ".join(str(run.path) for run in runs)
        raise InputError(f"no figure finds its metrics in {which}: train with one of the probes {probes}")
    return names

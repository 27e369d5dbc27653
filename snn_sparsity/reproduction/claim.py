"""The paper's claim, tested: do networks with more zeros in their gradients keep more accuracy under attack?"""

import math
from collections.abc import Sequence
from itertools import product
from statistics import fmean
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from snn_sparsity.documents.blocks import Cell, Table, words
from snn_sparsity.figures.drawing import labelled, legend, panels
from snn_sparsity.measure.correlation import Correlation, partial, pearson
from snn_sparsity.measure.names import GRAD_ZERO, accuracy_of
from snn_sparsity.protocols import Protocol
from snn_sparsity.reproduction.attack_settings import AttackSettings, attacks_of
from snn_sparsity.reproduction.paper import DATASETS, network_name
from snn_sparsity.reproduction.results import Result
from snn_sparsity.reproduction.tradeoff import COLOURS
from snn_sparsity.runs.curves import KINDS
from snn_sparsity.runs.metrics import Metrics, Number

STRUCTURAL = (0.0, 0.75)
"""Shares of zeros that say what a layer is, whatever its weights: all is read, or a quarter of the positions (1x1, stride 2)."""
NEAR = 5e-4
CONFOUNDED = 0.5


class Point(NamedTuple):
    """One epoch of one run.

    Attributes:
        result: The run.
        zeros: Share of zeros in the input gradient, the mean over the operations of a kind that are no structural constant.
        attacked: Accuracy under attack.
        clean: Accuracy without one.
    """

    result: Result
    zeros: float
    attacked: Number
    clean: Number


class Series(NamedTuple):
    """What is correlated: one attack and one kind of operation on one dataset, over runs and epochs.

    Attributes:
        dataset: The dataset.
        attack: The attack.
        kind: The kind of operation.
        points: Runs and epochs that have all three numbers.
    """

    dataset: str
    attack: AttackSettings
    kind: str
    points: list[Point]

    @property
    def runs(self) -> int:
        """Number of runs."""
        return len({point.result.number for point in self.points})

    @property
    def over_epochs(self) -> Correlation:
        """Correlation of zeros with accuracy under attack over all points."""
        return pearson([point.zeros for point in self.points], [point.attacked.value for point in self.points])

    @property
    def given_clean(self) -> Correlation:
        """The same once what clean accuracy explains is taken from both: a better network gains on both scales."""
        return partial(*zip(*((point.zeros, point.attacked.value, point.clean.value) for point in self.points), strict=True))

    @property
    def over_runs(self) -> Correlation:
        """Correlation over runs, each at its best epoch."""
        best = [point for point in self.points if point.attacked.epoch == point.result.epoch and not point.result.tested]
        return pearson([point.zeros for point in best], [point.attacked.value for point in best])

    @property
    def depth_share(self) -> float:
        """Share of the zeros' variance that the depth of the network explains; 0 where all are as deep."""
        zeros = np.array([point.zeros for point in self.points])
        depths = np.array([point.result.record.setting[2] for point in self.points])
        between = sum((depths == depth).sum() * (zeros[depths == depth].mean() - zeros.mean()) ** 2 for depth in np.unique(depths))
        total = float(((zeros - zeros.mean()) ** 2).sum())
        return float(between) / total if total > 0 and len(np.unique(depths)) > 1 else 0.0


def series_of(results: Sequence[Result], attacks: Sequence[AttackSettings]) -> list[Series]:
    """Return what can be correlated, by dataset, attack and kind of operation; runs that failed are left out."""
    sound = [result for result in results if not result.failure]
    datasets = sorted({result.record.dataset for result in sound})
    found = []
    for dataset, attack, kind in product(datasets, attacks, KINDS):
        points = []
        for result in (each for each in sound if each.record.dataset == dataset):
            metrics = result.record.metrics
            probe = next((name for name, each in attacks_of(result.record).items() if each == attack), "")
            zeros, attacked, clean = varying_zeros(metrics, kind), metrics.get(accuracy_of(probe), {}), metrics.get(accuracy_of("val"), {})
            epochs = sorted(zeros.keys() & attacked.keys() & clean.keys())
            points += [Point(result, zeros[epoch], attacked[epoch], clean[epoch]) for epoch in epochs]
        if points:
            found.append(Series(dataset, attack, kind, points))
    return found


def claim_table(protocol: Protocol, series: Sequence[Series]) -> Table:
    """Return the correlations with their 95 % intervals, and whether that over runs is as the paper claims: above 0.

    Epochs of a run are no independent points: their interval is too narrow for a word.
    """
    header = ["dataset", "attack", "zeros at", "points", "runs", "r over runs and epochs", "r given clean accuracy",
              "r over runs, best epochs", "as claimed?"]  # fmt: skip
    lines = []
    for each in series:
        logged = f"{GRAD_ZERO}/{each.kind}/ that vary, {each.points[0].attacked.name}, {each.points[0].clean.name}"
        source = f"{logged}: every epoch of {' '.join(dict.fromkeys(point.result.mark for point in each.points))}"
        sourced = [Cell(_shown(value), (source,)) for value in (each.over_epochs, each.given_clean, each.over_runs)]
        confounded = f"confounded with depth ({100 * each.depth_share:.0f} % of the zeros' variance)"
        is_confounded = each.depth_share > CONFOUNDED and not math.isnan(each.over_runs.low)
        about = words([DATASETS.get(each.dataset, each.dataset), each.attack.label, each.kind, len(each.points), each.runs])
        lines.append([*about, *sourced, *words([confounded if is_confounded else _reads(each.over_runs)])])
    return Table(f"claim, {protocol.title}", header, lines, numbers=("points", "runs"))


def claim(protocol: Protocol, series: Sequence[Series]) -> Figure:
    """Draw accuracy under attack against zeros of the input gradient (%) on one dataset.

    A row is an attack, a column a kind of operation, a colour a network; average pooling is hollow.
    """
    attacks, kinds = list(dict.fromkeys(each.attack for each in series)), list(dict.fromkeys(each.kind for each in series))
    figure, axes = panels(len(attacks), len(kinds), 1.6 + 3.1 * len(attacks))
    networks = sorted({point.result.record.setting for each in series for point in each.points})
    colours = {setting: COLOURS[place % len(COLOURS)] for place, setting in enumerate(dict.fromkeys(each[:3] for each in networks))}
    for each in series:
        panel = axes[attacks.index(each.attack), kinds.index(each.kind)]
        for setting in networks:
            own = [point for point in each.points if point.result.record.setting == setting]
            if own:
                _, network, depth, pool = setting
                colour, label = colours[setting[:3]], f"{network_name(network, depth)} {pool}"
                filled, marker = ("none", "s") if pool == "avg" else (colour, "o")
                zeros, attacked = [100 * point.zeros for point in own], [100 * point.attacked.value for point in own]
                panel.scatter(zeros, attacked, 20, marker=marker, facecolors=filled, edgecolors=colour, linewidths=0.8, label=label)
        panel.set_title(f"{each.kind}\nr = {_shown(each.over_epochs)}", fontsize=10)
        panel.xaxis.set_tick_params(labelbottom=True)
    for attack, row in zip(attacks, axes, strict=True):
        row[0].set_ylabel(f"accuracy (%)\n{attack.label}", fontsize=10)
    for panel in axes[-1]:
        panel.set_xlabel("zeros (%)")
    dataset = DATASETS.get(series[0].dataset, series[0].dataset)
    figure.suptitle(f"{dataset}: accuracy under attack against zeros in the input gradient, over runs and epochs;\n{protocol.title}")
    legend(figure, labelled(axes.flat), 4)
    return figure


def varying_zeros(metrics: Metrics, kind: str) -> dict[int, float]:
    """Return, by epoch, the mean share of zeros over a kind's operations that are no structural constant.

    An operation is left out if its share stays within 0.05 points of 0, or of 75 %, at all epochs: the strided shortcuts of every
    ResNet, and all that a network never makes sparse. Their mean would count layers, so that depth alone would correlate.
    """
    curves = [curve for name, curve in metrics.items() if name.startswith(f"{GRAD_ZERO}/{kind}/")]
    kept = [curve for curve in curves if not any(all(abs(each.value - share) < NEAR for each in curve.values()) for share in STRUCTURAL)]
    epochs = set.intersection(*map(set, kept)) if kept else set()
    return {epoch: fmean(curve[epoch].value for curve in kept) for epoch in epochs}


def _shown(value: Correlation) -> str:
    if math.isnan(value.value):
        return "undefined"
    return f"{value.value:+.2f} [{value.low:+.2f}, {value.high:+.2f}]"


def _reads(value: Correlation) -> str:
    """Say what the interval allows."""
    if math.isnan(value.low):
        return "undefined"
    return "yes" if value.low > 0 else "no: the opposite" if value.high < 0 else "undecided"

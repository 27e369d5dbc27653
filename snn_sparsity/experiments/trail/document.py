"""The document of section 5 as experiments, in the paper's model and in a trained network."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from snn_sparsity.batch import SpikeBatch
from snn_sparsity.distributed import Meeting
from snn_sparsity.documents.blocks import Block, Heading, Picture, Table, words
from snn_sparsity.experiments.attackers import ModelUnderTest
from snn_sparsity.experiments.trail.images import NEAR, per_image
from snn_sparsity.experiments.trail.pruning import pruned
from snn_sparsity.experiments.trail.two_layers import INPUTS, NETWORKS, TIME_STEPS, WIDTHS, Width, random_networks
from snn_sparsity.figures.drawing import BLUE, GREEN, ORANGE, VERMILLION, canvas, labelled, legend
from snn_sparsity.measure.correlation import Correlation
from snn_sparsity.probes.context import ProbeContext
from snn_sparsity.probes.vulnerability_ratio import VulnerabilityRatio
from snn_sparsity.randomness import stream

DRAWS = 64


def model_blocks() -> Iterator[Block]:
    """Yield what random networks of the paper's own model say."""
    widths = [random_networks(hidden) for hidden in WIDTHS]
    yield (
        "Section 5 of the paper (arXiv 2509.23762) says that zeros of weights make zeros of the input gradient, and that these "
        "go with zeros of weight gradients. Within a training run most of that cannot be correlated: weights are constant in an epoch, "
        "exact zeros at inputs do not vary. Here what is said to be the cause is varied. Correlations that cannot exist are not offered."
    )
    yield Heading("The paper's two-layer model, null shares drawn at random")
    yield (
        f"{NETWORKS} networks a width, {INPUTS} inputs, {TIME_STEPS} time steps; Pearson's r with its 95 % interval. An input's gradient "
        "is zero where every hidden neuron is cut off: E[(1-(1-q1)(1-q2))^H], which fades with the width."
    )
    header = ["hidden neurons", "null w1", "null w2", "zeros of w1's gradient", "the same, given null w2", "input zeros, %", "expected, %"]
    rows = [
        words([each.hidden, *map(_shown, each[1:5]), f"{100 * each.zeros:.1f}", f"{100 * each.expected:.1f}"]) for each in widths
    ]  # fmt: skip
    yield Table("two layers", header, rows)
    yield Picture("widths", lambda: width_figure(widths), "Correlation with zeros of the input gradient, by width.")
    yield (
        "The first statement holds and fades with width. 'Given w2' is the paper's bar read as conditioning: what zeros of the weight "
        "gradient and of the input gradient share is the null share of w2, their common cause, and nothing is left once it is held fixed."
    )


def network_blocks(name: str, case: ModelUnderTest, layer: str | None = None) -> Iterator[Block]:
    """Yield what a trained network says: pruning, images, Theorem 1."""
    own, before, doses = pruned(case, layer)
    yield Heading(f"Pruning {own} of {name}: how far zeros travel")
    yield f"{min(case.batch_size, len(case.labels))} images; zeros in percent. Channel mixing and the sum over positions fill zeros again."
    header = ["pruned", "share, %", f"at {own}'s input", f"at {before}'s weight gradient", f"at {before}'s input", "at the network's input"]
    yield Table(
        "pruning", header, [words([dose.what, f"{100 * dose.share:g}", *(f"{100 * zeros:.1f}" for zeros in dose[2:])]) for dose in doses]
    )
    yield Heading("Over images: near zeros of a layer's two gradients")
    layers = per_image(case)
    count, defined = len(case.labels), [each for each in layers if not np.isnan(each.rho)]
    constant = sum(each.exact == 0 for each in layers)
    raw, kept = sum(each.p < 0.05 for each in defined), sum(each.discovered < 0.05 for each in defined)
    yield (
        f"{count} images. Exact zeros at the input do not vary at all in {constant} of {len(layers)} layers: no correlation with them "
        f"exists. Near zeros (below {NEAR:g} of the image's largest) vary in {len(defined)}: p < 0.05 in {raw} of these, and in {kept} "
        "once false discoveries are controlled (Benjamini-Hochberg)."
    )
    shown = [words([each.tag, f"{each.rho:+.2f}", f"{each.p:.3g}", f"{each.discovered:.3g}"]) for each in defined]
    yield Table("images", ["layer", "Spearman's rho", "p", "p, false discoveries controlled"], shown)
    yield Heading(f"Theorem 1, with {DRAWS} random draws")
    values = theorem(case)
    yield Table("theorem", ["value", "here"], [words([key, f"{value:.4g}"]) for key, value in sorted(values.items())])
    yield (
        "The measured adversarial vulnerability is that of the best of a few attacks, a lower bound of the supremum in the theorem: a "
        "measured ratio below 3 refutes an attack, not the theorem's lower bound. Few draws read high (the mean of an inverse): "
        "8 draws put the median some 9 % too high."
    )


def theorem(case: ModelUnderTest) -> dict[str, float]:
    """Return Theorem 1's ratio, predicted and measured over 64 draws, and the share of images inside its bounds."""
    probe = VulnerabilityRatio(draws=DRAWS)
    images, labels = (part[: case.batch_size].to(case.device) for part in (case.images, case.labels))
    context: Any = ProbeContext(case.classifier, case.encoder, stream(0), 0, (probe,), Meeting(), 0)
    batch = SpikeBatch(case.spikes(case.batch_size), labels, images)
    return {name: float(value) for name, value in probe.summarise(probe.measure(context, batch)).items()}


def width_figure(widths: list[Width]) -> Figure:
    """Draw each correlation against the number of hidden neurons (log axis), with 95 % intervals."""
    figure = canvas(4.2)
    axes = figure.subplots()
    looks = {"w1": ("null w1", BLUE, "o"), "w2": ("null w2", ORANGE, "s"), "gradient": ("zeros of w1's gradient", GREEN, "^"),
             "given_w2": ("the same, given null w2", VERMILLION, "D")}  # fmt: skip
    hidden = [each.hidden for each in widths]
    for name, (label, colour, marker) in looks.items():
        found = [getattr(each, name) for each in widths]
        axes.plot(hidden, [each.value for each in found], color=colour, marker=marker, label=label)
        axes.fill_between(hidden, [each.low for each in found], [each.high for each in found], color=colour, alpha=0.15, linewidth=0)
    axes.set_xscale("log", base=2)
    axes.set_xlabel("hidden neurons")
    axes.set_ylabel("correlation with zeros\nof the input gradient")
    legend(figure, labelled([axes]), 4)
    return figure


def _shown(found: Correlation) -> str:
    return "undefined" if np.isnan(found.value) else f"{found.value:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"

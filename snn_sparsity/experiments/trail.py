"""The paper's section 5 as experiments: where zeros come from, and how far they travel.

Only what can vary is correlated. Within an epoch the weights of a trained network are constant, and so are exact zeros at most inputs:
correlations with either do not exist. Here null shares vary over random networks of the paper's own model, pruning varies them in a
trained network, and near zeros vary over images.
"""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor, nn

from snn_sparsity.batch import SpikeBatch
from snn_sparsity.distributed import Meeting
from snn_sparsity.documents.blocks import Block, Heading, Picture, Table, words
from snn_sparsity.experiments.attackers import ModelUnderTest
from snn_sparsity.figures.drawing import BLUE, GREEN, ORANGE, VERMILLION, canvas, labelled, legend
from snn_sparsity.measure.correlation import Correlation, partial, pearson
from snn_sparsity.measure.gradients import record_gradients
from snn_sparsity.measure.operations import Operation, operations
from snn_sparsity.measure.reachability import reachability
from snn_sparsity.measure.sparsity import per_sample, zero_fraction
from snn_sparsity.probes.base import ProbeContext
from snn_sparsity.probes.gradient_trail import weight_of
from snn_sparsity.probes.vulnerability_ratio import VulnerabilityRatio
from snn_sparsity.randomness import stream
from snn_sparsity.reproduction.two_layer import printed_input_gradient, printed_w1_gradient
from snn_sparsity.validation import InputError

WIDTHS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
NETWORKS, INPUTS, TIME_STEPS = 300, 32, 10
DOSES = (0.0, 0.5, 0.9, 0.99, 0.999)
CHANNEL_DOSES = (0.25, 0.5, 0.75)
NEAR = 1e-3
"""A gradient entry is near zero below this share of the image's largest."""
DRAWS = 64


class Width(NamedTuple):
    """Correlations over random networks of one width.

    Attributes:
        hidden: H.
        w1: Null share of w1 with zeros of the input gradient.
        w2: Null share of w2 with the same.
        gradient: Zeros of w1's gradient with the same: the paper's second and third bullets.
        given_w2: The last, once what the null share of w2 explains is taken from both.
        zeros: Mean zeros of the input gradient.
        expected: ``E[(1 - (1 - q1)(1 - q2))^H]`` over the null shares drawn.
    """

    hidden: int
    w1: Correlation
    w2: Correlation
    gradient: Correlation
    given_w2: Correlation
    zeros: float
    expected: float


def random_networks(hidden: int, networks: int = NETWORKS, seed: int = 0) -> Width:
    """Return how zeros go together over random networks of the paper's two-layer model (its section 5).

    Weights are standard normal, of which a share q1 of w1 [H,32] and q2 of w2 [H] is null, both uniform in [0,1] and drawn for each
    network; inputs are 10 steps of fair coins. With ``instantaneous`` neurons an input's gradient is zero exactly where every hidden
    neuron is cut off from it or from the output.

    Args:
        hidden: H, at least 1.
        networks: How many.
        seed: Of all draws.

    Example:
        >>> found = random_networks(1, networks=50)
        >>> found.w2.value > 0.4, abs(found.zeros - found.expected) < 0.1
        (True, True)
    """
    generator = stream(seed, hidden)
    rows = []
    for _ in range(networks):
        q1, q2 = torch.rand(2, generator=generator).tolist()
        w1 = torch.randn(hidden, INPUTS, generator=generator) * (torch.rand(hidden, INPUTS, generator=generator) >= q1)
        w2 = torch.randn(hidden, generator=generator) * (torch.rand(hidden, generator=generator) >= q2)
        s = (torch.rand(TIME_STEPS, INPUTS, generator=generator) < 0.5).float()
        # In float64: a product of small surrogates must not underflow to a zero.
        s, w1, w2 = s.double(), w1.double(), w2.double()
        zeros = [float((gradient(s, w1, w2) == 0).double().mean()) for gradient in (printed_input_gradient, printed_w1_gradient)]
        rows.append((float((w1 == 0).double().mean()), float((w2 == 0).double().mean()), *zeros, (1 - (1 - q1) * (1 - q2)) ** hidden))
    w1_null, w2_null, inputs, weights, expected = np.array(rows).T
    return Width(
        hidden, pearson(w1_null, inputs), pearson(w2_null, inputs), pearson(weights, inputs), partial(weights, inputs, w2_null),
        float(inputs.mean()), float(expected.mean()),
    )  # fmt: skip


class Dose(NamedTuple):
    """Zeros in a trained network of which one convolution is pruned.

    Attributes:
        what: What was pruned.
        share: How much of it.
        own: Zeros at the pruned convolution's input: the chain that the paper calls shared.
        weight: Zeros of the gradient of the weights before it, over those that can see the image.
        before: Zeros at the input of the convolution before it.
        first: Zeros at the network's input.
    """

    what: str
    share: float
    own: float
    weight: float
    before: float
    first: float


def pruned(case: ModelUnderTest, layer: str | None = None) -> tuple[str, str, list[Dose]]:
    """Prune a convolution by rising doses, and see how far its zeros travel towards the input.

    Single entries are pruned smallest first, input channels by the smallest L1 norm first; the rest of the network stays as it was
    trained, and the network of the case is left alone.

    Args:
        case: A trained network; its first images are looked at, one batch of them.
        layer: Path of the convolution; null is ``layer2.0.conv2``, else the last.

    Returns:
        The convolution, the one before it, and a line for each dose.

    Raises:
        InputError: If there is no such convolution, or none before it.
    """
    classifier = deepcopy(case.classifier)
    convolutions = operations(_network(classifier), ["conv"])
    paths = [each.path for each in convolutions]
    place = paths.index(layer or ("layer2.0.conv2" if "layer2.0.conv2" in paths else paths[-1])) if layer in (None, *paths) else 0
    if place == 0:
        raise InputError(f"--layer {layer} must be a convolution with one before it: {', '.join(paths[1:])}")
    own, before = convolutions[place], convolutions[place - 1]
    weight = weight_of(own).detach()
    whole = weight.clone()
    doses = []
    for what, share, mask in _masks(whole):
        weight.copy_(whole * mask)
        doses.append(Dose(what, share, *_zeros_at(classifier, case, own, before)))
    return own.path, before.path, doses


def _masks(weight: Tensor) -> Iterator[tuple[str, float, Tensor]]:
    """Yield masks that keep all but a share of a weight [O,I,kH,kW]."""
    order = weight.abs().flatten().argsort().argsort().view_as(weight)
    for share in DOSES:
        yield "entries", share, order >= round(share * weight.numel())
    channels = weight.abs().sum((0, 2, 3)).argsort().argsort()
    for share in CHANNEL_DOSES:
        yield "input channels", share, (channels >= round(share * len(channels))).view(1, -1, 1, 1)


def _zeros_at(classifier: nn.Module, case: ModelUnderTest, own: Operation, before: Operation) -> tuple[float, float, float, float]:
    spikes, labels = _spikes(case, case.batch_size), case.labels[: case.batch_size].to(_device(classifier))
    with record_gradients(_network(classifier), ["conv"]) as record:
        loss = F.cross_entropy(classifier(spikes), labels, reduction="sum")
        _, gradient = torch.autograd.grad(loss, [spikes, weight_of(before)])
    seen = reachability(_network(classifier), (spikes.shape[-2], spikes.shape[-1]), spikes.shape[2])[before.path].to(gradient.device)
    zeros = [float(record.values[path][0].mean()) for path in (own.path, before.path, record.operations[0].path)]
    return zeros[0], float((gradient[seen] == 0).double().mean()), zeros[1], zeros[2]


class Layer(NamedTuple):
    """How near zeros of one layer's two gradients go together over images.

    Attributes:
        tag: The layer.
        rho: Spearman's correlation; NaN where one side does not vary.
        p: Its p-value.
        discovered: p after Benjamini and Hochberg's control of false discoveries over all layers that vary.
        exact: Spread of the exact zeros at the layer's input over images: where 0, no correlation with them exists.
    """

    tag: str
    rho: float
    p: float
    discovered: float
    exact: float


def per_image(case: ModelUnderTest) -> list[Layer]:
    """Correlate near zeros (below 1e-3 of the image's largest) of input gradient and weight gradient over images, layer by layer.

    One backward pass an image; weights that can see the image.
    """
    network = _network(case.classifier)
    layers = operations(network, ["conv", "linear"])
    weights = [weight_of(layer) for layer in layers]
    spikes = _spikes(case, 1)
    seen = reachability(network, (spikes.shape[-2], spikes.shape[-1]), spikes.shape[2])
    rows: list[list[tuple[float, float, float]]] = []
    for place in range(len(case.labels)):
        x, label = _spikes(case, 1, place), case.labels[place : place + 1].to(_device(case.classifier))
        with record_gradients(network, ["conv", "linear"], reduce=_near_and_exact) as record:
            loss = F.cross_entropy(case.classifier(x), label)
            _, *gradients = torch.autograd.grad(loss, [x, *weights])
        rows.append([
            (*record.values[layer.path], float(near_zeros((g[seen[layer.path].to(g.device)] if layer.path in seen else g).unsqueeze(0))))
            for layer, g in zip(layers, gradients, strict=True)
        ])  # fmt: skip
    return discoveries([layer.tag for layer in layers], np.array(rows))


def _near_and_exact(_: Operation, gradient: Tensor) -> tuple[float, float]:
    return float(near_zeros(gradient.transpose(0, 1))), float(zero_fraction(gradient, batch_dim=1))


def near_zeros(gradient: Tensor) -> Tensor:
    """Return the share of entries below 1e-3 of each sample's largest, [N].

    Example:
        >>> near_zeros(torch.tensor([[1.0, 2e-3, 5e-4, 0.0]])).tolist()
        [0.5]
    """
    size = per_sample(gradient).abs()
    return (size < NEAR * size.amax(1, keepdim=True)).double().mean(1)


def discoveries(tags: list[str], rows: NDArray[np.float64]) -> list[Layer]:
    """Return each layer's correlation over images, with false discoveries controlled over the layers that vary.

    Args:
        tags: L layers.
        rows: [n,L,3]: near zeros at the input, exact zeros there, near zeros of the weight gradient.

    Example:
        >>> rows = np.zeros((6, 2, 3))
        >>> rows[:, 0, 0] = rows[:, 0, 2] = range(6)
        >>> [(layer.tag, layer.rho, layer.discovered < 0.05) for layer in discoveries(["a", "b"], rows)]
        [('a', 1.0, True), ('b', nan, False)]
    """
    varies = [bool(np.ptp(rows[:, place, 0]) > 0 and np.ptp(rows[:, place, 2]) > 0) for place in range(len(tags))]
    found = [stats.spearmanr(rows[:, place, 0], rows[:, place, 2]) if there else None for place, there in enumerate(varies)]
    defined = [float(each.pvalue) for each in found if each is not None]
    controlled = iter(stats.false_discovery_control(defined) if defined else [])
    layers = []
    for tag, each, exact in zip(tags, found, np.ptp(rows[:, :, 1], axis=0).tolist(), strict=True):
        rho, p = (float(each.statistic), float(each.pvalue)) if each is not None else (float("nan"), float("nan"))
        layers.append(Layer(tag, rho, p, float(next(controlled)) if each is not None else float("nan"), exact))
    return layers


def theorem(case: ModelUnderTest) -> dict[str, float]:
    """Return Theorem 1's ratio, predicted and measured over 64 draws, and the share of images inside its bounds."""
    probe = VulnerabilityRatio(draws=DRAWS)
    images = case.images[: case.batch_size].to(_device(case.classifier))
    labels = case.labels[: case.batch_size].to(images.device)
    context: Any = ProbeContext(case.classifier, case.encoder, stream(0), 0, (probe,), Meeting(), 0)
    batch = SpikeBatch(_spikes(case, case.batch_size).detach(), labels, images)
    return {name: float(value) for name, value in probe.summarise(probe.measure(context, batch)).items()}


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


def _network(classifier: nn.Module) -> nn.Module:
    network = getattr(classifier, "network", classifier)
    assert isinstance(network, nn.Module)
    return network


def _device(classifier: nn.Module) -> torch.device:
    return next(iter(classifier.parameters())).device


def _spikes(case: ModelUnderTest, count: int, first: int = 0) -> Tensor:
    """Return the spikes [T,N,C,H,W] of some images, a leaf that takes a gradient."""
    images = case.images[first : first + count].to(_device(case.classifier))
    return case.encoder(images, stream(0)).detach().requires_grad_()

"""How near zeros of a layer's input gradient and weight gradient go together over images."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from snn_sparsity.experiments.attackers import ModelUnderTest
from snn_sparsity.measure.gradients import record_gradients
from snn_sparsity.measure.operations import Operation, operations
from snn_sparsity.measure.reachability import reachability
from snn_sparsity.measure.sparsity import per_sample, zero_fraction
from snn_sparsity.probes.gradient_trail import weight_of

NEAR = 1e-3
"""A gradient entry is near zero below this share of the image's largest."""


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
    layers = operations(case.network, ["conv", "linear"])
    weights = [weight_of(layer) for layer in layers]
    steps, _, channels, height, width = case.spikes(1).shape
    seen = reachability(case.network, (height, width), channels, steps)
    rows: list[list[tuple[float, float, float]]] = []
    for place in range(len(case.labels)):
        x, label = case.spikes(1, place).requires_grad_(), case.labels[place : place + 1].to(case.device)
        with record_gradients(case.network, ["conv", "linear"], reduce=_near_and_exact) as record:
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

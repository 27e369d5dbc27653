"""Zeros in random networks of the paper's two-layer model."""

from typing import NamedTuple

import numpy as np
import torch

from snn_sparsity.measure.correlation import Correlation, partial, pearson
from snn_sparsity.randomness import stream
from snn_sparsity.reproduction.two_layer import printed_input_gradient, printed_w1_gradient

WIDTHS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
NETWORKS, INPUTS, TIME_STEPS = 300, 32, 10


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

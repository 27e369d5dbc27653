"""Derivatives of the spike that follow the membrane potentials."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from snn_sparsity.gradient_rules.surrogates import SHAPES, ShapeName, Spike, Surrogate, SurrogateRule
from snn_sparsity.validation import require_choice, require_number

SHARPNESS: dict[ShapeName, Callable[[float], float]] = {
    "atan": lambda lost: 2 / math.pi * math.tan(math.pi * lost / 2),
    "sigmoid": lambda lost: 2 * math.atanh(lost),
    "rect": lambda lost: lost / 2,
    "triangle": lambda lost: 1 - math.sqrt(1 - lost),
    "gaussian": lambda lost: NormalDist().inv_cdf((1 + lost) / 2),
}
"""The alpha with which a shape has this share of its area within distance 1 of the threshold."""


@dataclass(frozen=True)
class ASSG(SurrogateRule):
    """ASSG: a surrogate whose sharpness follows each neuron's distance from the threshold, over the iterations of an attack.

    For each element and time step, at every look that takes a gradient (of several draws at the first alone), from M = 1 and D = 0:
    ``M <- b M + (1-b) |u|``, then ``D <- b D + (1-b) ||u| - M|``, ``alpha = w / (M + gamma D + 1e-4)``. An element that stays at the mean
    distance M has lost the share A of the surrogate's area (of 1):

    | shape | w |
    |---|---|
    | ``atan`` | ``(2/pi) tan(pi A / 2)`` |
    | ``sigmoid`` | ``2 artanh(A)`` |
    | ``rect`` | ``A / 2`` |
    | ``triangle`` | ``1 - sqrt(1 - A)`` |
    | ``gaussian`` | ``sqrt(2) erfinv(A)`` |

    From arXiv 2512.22522, which tells gains for all five; the w of those beside ``atan`` follow from its condition on A.
    A batch of another shape starts anew: attacks that drop samples lose what was gathered.

    Args:
        shape: One of the table.
        vanishing_degree: A, above 0 and at most 0.99; 0.87 is the authors'.
        decay: b, in [0,1]; the authors use the same for M and D.
        gamma: Weight of the deviation, at least 0.

    Raises:
        InputError: For a number outside its range.

    Example:
        At distance 1 from the threshold M stays 1 and D 0; with A = 1/2, alpha is 2/pi and the slope alpha/4.

        >>> from snn_sparsity.networks import IFNeuron
        >>> node, x = IFNeuron().build(), torch.zeros(1, 1, requires_grad=True)
        >>> node.step_mode = "m"
        >>> with ASSG(vanishing_degree=0.5).applied(node):
        ...     round(torch.autograd.grad(node(x).sum(), x)[0].item(), 3)
        0.159
    """

    shape: ShapeName = "atan"
    vanishing_degree: float = 0.87
    decay: float = 0.9
    gamma: float = 1.5

    def __post_init__(self) -> None:
        require_choice("shape", self.shape, SHAPES)
        require_number("vanishing_degree", self.vanishing_degree, above=0, at_most=0.99)
        require_number("decay", self.decay, at_least=0, at_most=1)
        require_number("gamma", self.gamma, at_least=0)

    def surrogate(self, spike: Spike) -> Surrogate:
        """Return a spike that has seen nothing yet."""
        return _Adaptive(spike, self)


class _Adaptive(Surrogate):
    def __init__(self, spike: Spike, rule: ASSG) -> None:
        super().__init__(spike)
        self.rule = rule
        self.omega = SHARPNESS[rule.shape](rule.vanishing_degree)
        self.seen: dict[int, tuple[Tensor, Tensor]] = {}
        self.awaited: set[int] = set()

    def forward(self, u: Tensor) -> Tensor:
        spikes = super().forward(u)
        if spikes.requires_grad:
            # All draws of a look come before its gradient.
            spikes.register_hook(lambda _: self.awaited.clear())
        return spikes

    def slope(self, u: Tensor) -> Tensor:
        before = self.seen.get(self.step)
        if before is None or before[0].shape != u.shape:
            before = torch.ones_like(u), torch.zeros_like(u)
            self.awaited.discard(self.step)
        mean, deviation = before
        if self.step not in self.awaited:
            mean = mean.lerp(u.abs(), 1 - self.rule.decay)
            deviation = deviation.lerp((u.abs() - mean).abs(), 1 - self.rule.decay)
            self.seen[self.step] = mean, deviation
            self.awaited.add(self.step)
        return SHAPES[self.rule.shape](u, self.omega / (mean + self.rule.gamma * deviation + 1e-4))


@dataclass(frozen=True)
class PDSG(SurrogateRule):
    """PDSG: a Gaussian as wide as the membrane potentials spread, shifted to the right: ``N(u; sigma/2, sigma^2)``.

    sigma[t] is the standard deviation of the channel's potentials over images, positions and the steps up to t (1 where it is 0).
    From Lun et al., arXiv 2503.03272, and its code. It depends on the batch: only results of the same batches compare.

    Example:
        Potentials 0.5 and 1.5: sigma 0.5, and the derivative is largest half a sigma above the threshold.

        >>> from snn_sparsity.networks import IFNeuron
        >>> node, x = IFNeuron().build(), torch.tensor([[[0.5], [1.5]]], requires_grad=True)
        >>> node.step_mode = "m"
        >>> with PDSG().applied(node):
        ...     [round(g, 4) for g in torch.autograd.grad(node(x).sum(), x)[0].flatten().tolist()]
        [0.259, 0.7041]
    """

    def surrogate(self, spike: Spike) -> Surrogate:
        """Return a spike that measures the potentials of each pass."""
        return _PotentialDependent(spike)


class _PotentialDependent(Surrogate):
    def __init__(self, spike: Spike) -> None:
        super().__init__(spike)
        self.potentials: list[Tensor] = []

    def restart(self, *_: object) -> None:
        super().restart()
        self.potentials = []

    def forward(self, u: Tensor) -> Tensor:
        # A delayed neuron's first potential needs no gradient, and counts.
        if torch.is_grad_enabled():
            self.potentials.append(u.detach())
        return super().forward(u)

    def slope(self, u: Tensor) -> Tensor:
        others = [dim for dim in range(u.ndim + 1) if dim != 2]
        sigma = torch.stack(self.potentials).std(dim=others, keepdim=True, correction=0).squeeze(0)
        sigma = torch.where(sigma > 0, sigma, 1)
        return SHAPES["gaussian"](u - sigma / 2, 1 / sigma)

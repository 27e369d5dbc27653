"""Random noise: the attack that knows nothing."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from snn_sparsity.attacks.base import Attack, BestSoFar, Passes, Target, project, random_corners, uniform_noise
from snn_sparsity.attacks.lattice import lattice_radius, random_levels
from snn_sparsity.validation import InputError, require_choice, require_number

NoiseKind = Literal["uniform", "corners", "levels"]
DRAW: dict[NoiseKind, Callable[[Tensor, float, torch.Generator | None], Tensor]] = {
    "uniform": uniform_noise,
    "corners": random_corners,
    "levels": random_levels,
}


@dataclass(frozen=True, kw_only=True)
class Noise(Attack):
    """Random points of the ball, ``Pi(x + d)``; of each sample the draw with the largest margin is kept.

    If noise fools what a gradient attack does not, the attack is broken; if it costs much accuracy, there is no robustness to speak of
    (Carlini et al., arXiv 1902.06705, ask for 10,000 draws).

    Args:
        eps: Radius of the ball, in the units of x.
        draws: Number of draws for each sample, at least 1.
        kind: ``uniform`` in [-eps, eps], ``corners`` (-eps or eps for each element), or ``levels``: whole grey levels, for images.

    Raises:
        InputError: For a number outside its range, or ``levels`` on spikes.

    Example:
        Four draws of one pixel; the label loses as x grows.

        >>> from types import SimpleNamespace
        >>> target = SimpleNamespace(space="image", bounds=(0.0, 1.0), logits=lambda x: torch.cat([1 - x, x], 1))
        >>> Noise(eps=0.25, draws=4, kind="corners")(target, torch.tensor([[0.5]]), torch.tensor([0])).tolist()
        [[0.75]]
    """

    draws: int = 1
    kind: NoiseKind = "uniform"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("draws", self.draws, at_least=1, whole=True)
        require_choice("kind", self.kind, DRAW)
        if self.kind == "levels":
            object.__setattr__(self, "eps", lattice_radius(self.eps))

    def __call__(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Attack; see :meth:`Attack.__call__`."""
        if self.kind == "levels" and target.space != "image":
            raise InputError("Noise(kind='levels') draws grey levels: it needs space='image'")
        generator = generator or torch.Generator().manual_seed(0)
        best = BestSoFar.nothing(x)
        with torch.no_grad():
            for _ in range(self.draws):
                noisy = project(x + DRAW[self.kind](x, self.eps, generator), x, self.eps, target.bounds)
                best.update(noisy, target.logits(noisy), labels)
        return best.x

    @property
    def passes(self) -> Passes:
        """One forward pass a draw."""
        return Passes(self.draws, 0)

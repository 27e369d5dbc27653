"""HIRE-SNN's training: the time steps are shared out among the image and noise made from its own gradients."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from snn_sparsity.attacks.base import Passes
from snn_sparsity.measure.names import NOISE
from snn_sparsity.objectives.base import Objective, Outcome, TrainingStep
from snn_sparsity.units import Levels
from snn_sparsity.validation import InputError, require_number


@dataclass(frozen=True)
class SharedNoise(Objective):
    """Split the T steps of each image into N periods, one optimiser step each, with noise from the period before.

    ``d_1 = 0``; period i minimises ``CE(f_i(clip(x + d_i)), y)``, with f_i the network on T/N steps from rest; then
    ``d_{i+1} = clip(d_i + step sign(grad_x), -eps, eps)``, by the same backward pass that trained. In all, one pass of T steps each
    way: free adversarial training (Shafahi et al., arXiv 1904.12843) over time. A reconstruction of HIRE-SNN (Kundu et al., ICCV 2021),
    whose training code was never published: that neurons start each period from rest, and noise each batch from 0, is inferred.

    Args:
        periods: N, at least 1; it must divide T.
        step: Length of a noise step, at least 0, for images in [0,1].
        eps: Largest noise, at least 0.

    Raises:
        InputError: For a number outside its range; in a step, if N does not divide T.

    Example:
        >>> SharedNoise(periods=2).passes, SharedNoise(periods=2).replays
        (Passes(forwards=1, backwards=1), 2)
    """

    periods: int = 2
    step: Levels | float = Levels(8 / 255)
    eps: Levels | float = Levels(8 / 255)
    _noise: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require_number("periods", self.periods, at_least=1, at_most=1000, whole=True)
        require_number("step", self.step, at_least=0, at_most=1)
        require_number("eps", self.eps, at_least=0, at_most=1)
        object.__setattr__(self, "replays", self.periods)

    def __call__(self, step: TrainingStep) -> Outcome:
        """Return the loss of one period; its noise is ready once the loss has been pushed back."""
        clean, period = step.images, step.number % self.periods
        # A run that was stopped between two periods of a batch goes on without noise.
        noise = self._noise.get("now") if period else None
        noise = torch.zeros_like(clean) if noise is None else noise
        x = (clean + noise).clamp(0, 1).requires_grad_()
        x.register_hook(lambda gradient: self._noise.update(now=(noise + self.step * gradient.sign()).clamp(-self.eps, self.eps)))
        spikes = step.shown(x)
        if len(spikes) % self.periods:
            raise InputError(f"model.objective: periods={self.periods} does not divide the {len(spikes)} time steps of the code")
        logits = step.logits(spikes.chunk(self.periods)[period])
        return Outcome(F.cross_entropy(logits, step.batch.labels), {NOISE: noise.abs().mean()})

    @property
    def passes(self) -> Passes:
        """N of T/N steps, each way."""
        return Passes(1, 1)

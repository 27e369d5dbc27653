"""Plain training."""

from dataclasses import dataclass

import torch.nn.functional as F

from snn_sparsity.attacks.base import Passes
from snn_sparsity.objectives.base import Objective, Outcome, TrainingStep


@dataclass(frozen=True)
class CrossEntropy(Objective):
    """``L = CE(f(x), y)``, the mean over the batch.

    Example:
        >>> CrossEntropy().passes
        Passes(forwards=1, backwards=1)
    """

    def __call__(self, step: TrainingStep) -> Outcome:
        """Return the cross-entropy of the batch."""
        return Outcome(F.cross_entropy(step.logits(step.batch.spikes), step.batch.labels))

    @property
    def passes(self) -> Passes:
        """One of each."""
        return Passes(1, 1)

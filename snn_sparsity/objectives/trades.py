"""TRADES: the trade-off between accuracy and robustness as a loss."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from snn_sparsity.attacks.base import Passes, input_gradient, project
from snn_sparsity.measure.names import DIVERGENCE
from snn_sparsity.objectives.base import CRAFT, Objective, Outcome, TrainingStep
from snn_sparsity.units import Levels
from snn_sparsity.validation import require_number


@dataclass(frozen=True)
class TRADES(Objective):
    """``L = CE(f(x), y) + beta KL(f(x) || f(x'))`` with x' the image in the ball that makes the divergence large.

    From Zhang et al., arXiv 1901.08573: x' starts at ``x + 0.001 n``, n standard normal, and takes sign steps in eval mode.

    Args:
        beta: Weight of the divergence, at least 0.
        eps: Radius of the ball, for images in [0,1].
        alpha: Step length, above 0.
        steps: Number of steps, at least 1.

    Raises:
        InputError: For a number outside its range.

    Example:
        >>> TRADES(steps=10).passes
        Passes(forwards=13, backwards=12)
    """

    beta: float = 6.0
    eps: Levels | float = Levels(8 / 255)
    alpha: Levels | float = Levels(2 / 255)
    steps: int = 10

    def __post_init__(self) -> None:
        require_number("beta", self.beta, at_least=0)
        require_number("eps", self.eps, at_least=0, at_most=1)
        require_number("alpha", self.alpha, above=0, at_most=1)
        require_number("steps", self.steps, at_least=1, whole=True)

    def __call__(self, step: TrainingStep) -> Outcome:
        """Return the loss; ``train/divergence`` is the KL divergence, in nats."""
        x_adv = self._craft(step)
        logits, attacked = step.logits(step.batch.spikes), step.logits(step.shown(x_adv))
        divergence = kl_divergence(attacked, logits).mean()
        return Outcome(F.cross_entropy(logits, step.batch.labels) + self.beta * divergence, {DIVERGENCE: divergence.detach()})

    def _craft(self, step: TrainingStep) -> Tensor:
        target, x, eps = step.target("image"), step.images, step.radius(self.eps)
        with torch.no_grad():
            clean = target.logits(x)
        generator = step.generator(CRAFT)
        x_adv = x + 0.001 * torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
        for _ in range(self.steps):
            x_adv = project(x_adv, x, eps, target.bounds)
            gradient, _ = input_gradient(target.logits, x_adv, step.batch.labels, lambda logits, labels: kl_divergence(logits, clean))
            x_adv = project(x_adv + self.alpha * gradient.sign(), x, eps, target.bounds)
        return x_adv

    @property
    def passes(self) -> Passes:
        """``steps`` and the clean logits to craft; two of each to train."""
        return Passes(self.steps + 3, self.steps + 2)


def kl_divergence(logits: Tensor, reference: Tensor) -> Tensor:
    """Return ``KL(p || q)`` of each sample, [N], with p the softmax of ``reference`` and q that of ``logits``, both [N,K].

    Example:
        >>> kl_divergence(torch.tensor([[0.0, 0.0]]), torch.tensor([[50.0, 0.0]])).item()  # log 2
        0.6931471824645996
    """
    return F.kl_div(logits.log_softmax(1), reference.log_softmax(1), reduction="none", log_target=True).sum(1)

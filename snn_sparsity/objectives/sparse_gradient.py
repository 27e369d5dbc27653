"""SR: sparse gradients of the input, enforced."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from snn_sparsity.attacks.base import Attack, Passes
from snn_sparsity.measure.names import GRADIENT_ZEROS, PENALTY
from snn_sparsity.objectives.base import CRAFT, Objective, Outcome, TrainingStep
from snn_sparsity.validation import InputError, require_number


@dataclass(frozen=True)
class SparseGradient(Objective):
    """``L = CE(f(x), y) + weight mean(((p(x + h v) - p(x)) / h)^2)`` with ``v = sign(grad p(x))`` (SR).

    ``p = sigmoid(z_y - z_j)``, j the runner-up at x in both; gradients flow through both p, not through v. To first order the bracket is
    the L1 norm of the image gradient of p, so that the penalty is its square. From Liu et al., ICML 2024, as their code has it:
    both passes in training mode, x + h v not clipped. On a spiking network p is a staircase: h is a scale of smoothing, not a limit.

    A code that does not show the pixel's value clips x + h v to [0,1] and rounds it to grey levels.

    Args:
        weight: lambda, at least 0; with 0 there is no second pass.
        h: Step, above 0, for images in [0,1]; 0.01 is 2.55 grey levels.
        attack: Attacks the batch first, in eval mode ("SR with adversarial training"); null is none.

    Raises:
        InputError: For a number outside its range; in a step, with fewer than two classes.

    Example:
        >>> SparseGradient().passes
        Passes(forwards=2, backwards=3)
    """

    weight: float = 0.001
    h: float = 0.01
    attack: Attack | None = None

    def __post_init__(self) -> None:
        require_number("weight", self.weight, at_least=0)
        require_number("h", self.h, above=0, at_most=1)

    def __call__(self, step: TrainingStep) -> Outcome:
        """Return the loss; logged are ``train/penalty`` and ``train/gradient_zeros``, the share of zeros in v."""
        x, labels = step.images, step.batch.labels
        if self.attack is not None:
            x = self.attack(step.target("image"), x, labels, step.generator(CRAFT))
        if not self.weight:
            return Outcome(F.cross_entropy(step.logits(step.shown(x)), labels))
        x = x.detach().requires_grad_()
        logits = step.logits(step.shown(x))
        rival = runner_up(logits, labels)
        first = probability(logits, labels, rival)
        (gradient,) = torch.autograd.grad(first.sum(), x, retain_graph=True)
        second = probability(step.logits(step.shown(x.detach() + self.h * gradient.sign())), labels, rival)
        penalty = ((second - first) / self.h).square().mean()
        logged = {PENALTY: penalty.detach(), GRADIENT_ZEROS: (gradient == 0).to(penalty).mean()}
        return Outcome(F.cross_entropy(logits, labels) + self.weight * penalty, logged)

    @property
    def passes(self) -> Passes:
        """Two forward; one backward to the image, and one through both graphs; those of the attack."""
        attack = Passes(0, 0) if self.attack is None else self.attack.passes
        own = Passes(2, 3) if self.weight else Passes(1, 1)
        return Passes(own.forwards + attack.forwards, own.backwards + attack.backwards)


def runner_up(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the best class that is not the label, [N] int64.

    Raises:
        InputError: With one class only.

    Example:
        >>> runner_up(torch.tensor([[2.0, 5.0, 1.0]]), torch.tensor([1])).tolist()
        [0]
    """
    if logits.shape[1] < 2:
        raise InputError(f"SparseGradient needs at least 2 classes, there is {logits.shape[1]}")
    return logits.scatter(1, labels.unsqueeze(1), float("-inf")).argmax(1)


def probability(logits: Tensor, labels: Tensor, rival: Tensor) -> Tensor:
    """Return ``sigmoid(z_y - z_j)`` of each sample, [N]: the label's probability against one rival.

    Example:
        >>> probability(torch.tensor([[2.0, 2.0]]), torch.tensor([0]), torch.tensor([1])).tolist()
        [0.5]
    """
    return (logits.gather(1, labels.unsqueeze(1)) - logits.gather(1, rival.unsqueeze(1))).squeeze(1).sigmoid()

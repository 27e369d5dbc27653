"""MDSE: an attack on the gradients of several surrogates at once."""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from snn_sparsity.attacks.base import Attack, Passes, Target, beside
from snn_sparsity.attacks.sapgd import over_its_mean
from snn_sparsity.attacks.wrapped import WrappedTarget
from snn_sparsity.gradient_rules import GradientRule, SurrogateShape
from snn_sparsity.gradient_rules.base import Application
from snn_sparsity.validation import InputError, require_number


@dataclass(frozen=True)
class MDSE(Attack):
    """Mixed dynamic spiking estimation: run an attack on a mixture of the gradients under several backward rules.

    With g_r the gradient under rule r over its mean absolute value, the attack sees ``G = sum_r w_r g_r``, with weights of each sample's
    own. They begin equal and sum to 1; ``w_r`` grows by the factor ``exp(rate cos(g_r, G'))``, G' the mixture at the iterate that follows:
    a rule gains whose direction agreed with the gradient found after the step. No logit changes.

    After Xu et al., arXiv 2209.03358, where the weights climb the gradient of the loss with respect to them through one step: an inner
    product of the same two vectors. The factor and the cosine are ours, so that no length has to be set.

    Args:
        attack: Any attack.
        rules: What is mixed; the five shapes of surrogates if not given.
        rate: How fast weights move, at least 0; 0 keeps them equal.
        eps: Radius of the ball, in the units of x; the inner attack gets it too, whatever it said.

    Raises:
        InputError: For a number outside its range, or no rule.

    Example:
        Five gradients a step, and a look at the end of each.

        >>> from snn_sparsity.attacks.pgd import PGD
        >>> MDSE(PGD(steps=40)).passes
        Passes(forwards=201, backwards=200)
    """

    attack: Attack
    rules: tuple[GradientRule, ...] = (
        SurrogateShape("atan", 2.0),
        SurrogateShape("sigmoid", 4.0),
        SurrogateShape("rect", 1.0),
        SurrogateShape("triangle", 1.0),
        SurrogateShape("gaussian", 2.0),
    )
    rate: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("rate", self.rate, at_least=0)
        if not self.rules:
            raise InputError("MDSE needs at least one rule")
        object.__setattr__(self, "attack", replace(self.attack, eps=self.eps))

    def __call__(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Attack; see :meth:`Attack.__call__`."""
        return self.attack(Mixed(target, tuple(rule.lasting() for rule in self.rules), Weights(self.rate)), x, labels, generator)

    @property
    def passes(self) -> Passes:
        """A forward and a backward pass for each rule where the inner attack takes a gradient."""
        inner, more = self.attack.passes, len(self.rules) - 1
        return Passes(inner.forwards + more * inner.backwards, (more + 1) * inner.backwards)


@dataclass
class Weights:
    """How much each rule counts for each sample, and which directions the rules gave before.

    Args:
        rate: How fast weights move.
    """

    rate: float
    now: list[Tensor] = field(default_factory=list)
    found: dict[int, Tensor] = field(default_factory=dict)
    before: dict[int, Tensor] = field(default_factory=dict)

    def of_pass(self, x: Tensor, count: int) -> list[Tensor]:
        """Return the weights [N] of each rule for a pass that begins: what the last pass found judges the directions before it."""
        if not self.now or self.now[0].shape[0] != len(x):
            self.now, self.before, self.found = [torch.full((len(x),), 1 / count, device=x.device)] * count, {}, {}
        if len(self.found) < count:
            # Another draw of the same look: no gradient was taken since the last.
            return self.now
        if self.before:
            mixture = sum(beside(self.now[rule], x) * self.found[rule] for rule in range(count))
            agreed = [torch.cosine_similarity(self.before[rule].flatten(1), mixture.flatten(1)) for rule in range(count)]  # type: ignore[union-attr]  # set by then
            grown = [weight * torch.exp(self.rate * cosine) for weight, cosine in zip(self.now, agreed, strict=True)]
            self.now = [weight / sum(grown) for weight in grown]
        self.before, self.found = self.found, {}
        return self.now


class Mixed(WrappedTarget):
    """A target whose gradient is a mixture over rules; to an attack it looks like the target it wraps, asked as often as there are rules.

    Args:
        target: Any target.
        rules: What is mixed, each as it is applied for one pass.
        weights: How much each counts.
    """

    def __init__(self, target: Any, rules: tuple[Application, ...], weights: Weights) -> None:
        super().__init__(target)
        self.rules, self.weights = rules, weights

    def around(self, target: Any) -> "Mixed":
        """Return another target with the same mixture."""
        return Mixed(target, self.rules, self.weights)

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits under each rule, [R,N,K], all the same, where x requires a gradient, else the logits [N,K]."""
        if not x.requires_grad:
            logits: Tensor = self.target.logits(x)
            return logits
        looks = []
        for number, (rule, weight) in enumerate(zip(self.rules, self.weights.of_pass(x, len(self.rules)), strict=True)):
            own = x.view_as(x)
            own.register_hook(partial(self._weighed, number, weight))
            with rule(self.network):
                looks.append(self.target.logits(own))
        return torch.stack(looks).flatten(0, -3)

    def _weighed(self, number: int, weight: Tensor, gradient: Tensor) -> Tensor:
        direction = over_its_mean(gradient)
        self.weights.found[number] = direction.detach()
        return beside(weight, gradient) * direction

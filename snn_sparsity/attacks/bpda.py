"""An attack that sees another backward pass."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from snn_sparsity.attacks.base import Attack, Passes, Target
from snn_sparsity.gradient_rules import GradientRule


@dataclass(frozen=True)
class BPDA(Attack):
    """Run an attack while a backward rule changes the target's gradients; logits, and so what counts as fooled, stay the same.

    If an attack gains by a rule, robustness against the attack alone was a property of the gradient and not of the network
    (Athalye et al., arXiv 1802.00420). What the rule gathers over iterations lives for one call. Wrap twice for two rules.

    Args:
        attack: Any attack.
        rule: What its gradients are.
        eps: Radius of the ball, in the units of x; the inner attack gets it too, whatever it said.

    Raises:
        InputError: For eps below 0.

    Example:
        >>> from snn_sparsity.attacks.fgsm import FGSM
        >>> from snn_sparsity.gradient_rules import PoolGradient
        >>> BPDA(FGSM(), PoolGradient("uniform"), eps=0.1).attack.eps
        0.1
    """

    attack: Attack
    rule: GradientRule

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "attack", replace(self.attack, eps=self.eps))

    def __call__(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Attack; see :meth:`Attack.__call__`."""
        with self.rule.applied(target.network):
            return self.attack(target, x, labels, generator)

    @property
    def passes(self) -> Passes:
        """What the inner attack costs."""
        return self.attack.passes

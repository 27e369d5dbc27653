"""An attack that sees the mean over a random network's draws."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from snn_sparsity.attacks.base import Attack, Passes, Target
from snn_sparsity.attacks.wrapped import WrappedTarget
from snn_sparsity.validation import require_number


@dataclass(frozen=True)
class EOT(Attack):
    """Expectation over transformation: run an attack on the mean of M draws of a random network (Athalye et al., arXiv 1802.00420).

    Its gradients are ``1/M sum_r grad loss(f_r(x))``; where it only looks, it sees the mean logits. A random network attacked
    without this may look robust because single gradients are noise. Draws of a random code come from the target's generator,
    draws of a network's own random layers from the global random state, which the caller keeps.

    Args:
        attack: Any attack.
        draws: M, at least 1.
        eps: Radius of the ball, in the units of x; the inner attack gets it too, whatever it said.

    Raises:
        InputError: For a number outside its range.

    Example:
        >>> from snn_sparsity.attacks.pgd import PGD
        >>> EOT(PGD(steps=7), draws=20, eps=0.1).passes
        Passes(forwards=160, backwards=140)
    """

    attack: Attack
    draws: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("draws", self.draws, at_least=1, whole=True)
        object.__setattr__(self, "attack", replace(self.attack, eps=self.eps))

    def __call__(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Attack; see :meth:`Attack.__call__`."""
        return self.attack(Drawn(target, self.draws), x, labels, generator)

    @property
    def passes(self) -> Passes:
        """M times what the inner attack costs."""
        return Passes(*(self.draws * count for count in self.attack.passes))


def of_random_code(attack: Attack, draws: int) -> Attack:
    """Return the attack as it must be on a random code: on the mean over draws, unless it or an attack inside it says how many itself.

    Example:
        >>> from snn_sparsity.attacks.fgsm import FGSM
        >>> str(of_random_code(FGSM(), 10)), str(of_random_code(EOT(FGSM(), draws=5), 10))
        ('EOT(eps=8/255, attack=FGSM(eps=8/255), draws=10)', 'EOT(eps=8/255, attack=FGSM(eps=8/255), draws=5)')
    """
    inner: Any = attack
    while inner is not None:
        if isinstance(inner, EOT):
            return attack
        inner = getattr(inner, "attack", None)
    return EOT(attack, draws, eps=attack.eps)


class Drawn(WrappedTarget):
    """A target asked M times at once; to an attack it looks like the target it wraps.

    Args:
        target: Any target.
        draws: M.
    """

    def __init__(self, target: Any, draws: int) -> None:
        super().__init__(target)
        self.draws = draws

    def around(self, target: Any) -> "Drawn":
        """Return another target asked as often."""
        return Drawn(target, self.draws)

    def logits(self, x: Tensor) -> Tensor:
        """Return all draws [M,N,K] where x requires a gradient, else their mean [N,K].

        The mean is that of the logits, as ``input_gradient`` returns it, so that margins of both kinds of look can be compared.
        Mean log-probabilities would rank alike: they differ from it by one number for each sample.
        """
        draws = torch.stack([self.target.logits(x) for _ in range(self.draws)]).flatten(0, -3)
        return draws if x.requires_grad else draws.mean(0)

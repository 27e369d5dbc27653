"""An attack crafted on another network."""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from snn_sparsity.attacks.base import Attack, Passes, Target
from snn_sparsity.validation import InputError


@dataclass(frozen=True)
class Transfer(Attack):
    """Run an attack on another target of the same space and return what it found; the target itself is never asked.

    If an attack that never saw the network beats one that did, the network's own gradient misleads (Athalye et al., arXiv 1802.00420;
    Carlini et al., arXiv 1902.06705). That it does not says little: examples pass badly between spiking and other networks (arXiv
    2209.03358). Made in Python, not in a configuration: a target is no setting.

    Args:
        source: Where to craft: a second checkpoint, or the rate twin (:func:`snn_sparsity.networks.rate_twin`).
        attack: Any attack.
        eps: Radius of the ball, in the units of x; the inner attack gets it too, whatever it said.

    Raises:
        InputError: For eps below 0; in a call, if source and target are not attacked in the same space.

    Example:
        The source's label loses as x grows; so x is sent up, whatever the target is.

        >>> from types import SimpleNamespace
        >>> from snn_sparsity.attacks.fgsm import FGSM
        >>> source = SimpleNamespace(space="image", bounds=(0.0, 1.0), logits=lambda x: torch.cat([1 - x, x], 1))
        >>> target = SimpleNamespace(space="image", bounds=(0.0, 1.0))
        >>> Transfer(source, FGSM(), eps=0.25)(target, torch.tensor([[0.5]]), torch.tensor([0])).tolist()
        [[0.75]]
    """

    source: Target = field(repr=False)
    attack: Attack

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "attack", replace(self.attack, eps=self.eps))

    def __call__(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Attack the source; see :meth:`Attack.__call__`."""
        if self.source.space != target.space:
            raise InputError(f"Transfer needs source and target in one space: they are in {self.source.space!r} and {target.space!r}")
        return self.attack(self.source, x, labels, generator)

    @property
    def passes(self) -> Passes:
        """What the inner attack costs, on the source."""
        return self.attack.passes

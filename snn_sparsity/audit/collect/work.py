"""What the parts of an audit share: the subject, how much to do, what is known of it, and the ledger."""

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor, nn

from snn_sparsity.attacks.base import Attack
from snn_sparsity.audit.collect.battery import Budget, Facts
from snn_sparsity.audit.collect.control import trained_reference
from snn_sparsity.audit.collect.ledger import Ledger
from snn_sparsity.audit.collect.subject import Subject


@dataclass(frozen=True)
class Work:
    """An audit of one subject, all that its protocols have in common.

    Attributes:
        subject: What is audited.
        budget: How much.
        eps: Radius of the ball.
        claim: The quoted attack.
        facts: What the network is.
        clean: By image, whether it is right without an attack.
        ledger: Results, progress, and what was left out.
        training: Images and labels for the positive control; None leaves it out.
        source: A second classifier to transfer attacks from; None leaves it out.
    """

    subject: Subject
    budget: Budget
    eps: float
    claim: Attack
    facts: Facts
    clean: list[bool]
    ledger: Ledger
    training: tuple[Tensor, Tensor] | None
    source: nn.Module | None

    @cached_property
    def right(self) -> list[int]:
        """Places of the images that are right without an attack."""
        return [place for place, hit in enumerate(self.clean) if hit]

    @cached_property
    def radii(self) -> list[float]:
        """Radii of other balls, rising; that of the quoted attack is one of them."""
        quoted = round(255 * self.claim.eps)
        return [radius / 255 for radius in sorted({*self.budget.radii, quoted} - {round(255 * self.eps)})]

    @cached_property
    def reference(self) -> nn.Module:
        """The positive control, trained once for all protocols."""
        assert self.training is not None
        return trained_reference(self.subject, *self.training)

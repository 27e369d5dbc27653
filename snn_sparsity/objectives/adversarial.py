"""Adversarial training."""

from dataclasses import dataclass, field

import torch.nn.functional as F

from snn_sparsity.attacks.base import Attack, Passes
from snn_sparsity.attacks.fgsm import FGSM
from snn_sparsity.measure.names import ACCURACY
from snn_sparsity.objectives.base import CHOICE, Objective, Outcome, TrainingStep
from snn_sparsity.protocols import Space
from snn_sparsity.validation import InputError, require_choice, require_number


@dataclass(frozen=True)
class AdversarialTraining(Objective):
    """``L = CE(f(x'), y)`` with x' the images under attack (Madry et al., arXiv 1706.06083); the clean ones are not used.

    Attacks are crafted in eval mode. Each batch draws one of ``attacks``, the same on all processes.

    Args:
        attacks: Any attacks of the package; null is FGSM with 2/255, as SNN-RAT trains (Ding et al., NeurIPS 2022).
        probabilities: How likely each attack is; what is missing to 1 leaves the batch clean. Null is the same for all, and no clean batch.
        share: Share of each batch that is attacked; the rest of it stays clean.
        space: ``image`` (pixels) or ``spikes``.

    Raises:
        InputError: For no attack, numbers out of range, or probabilities that add up to more than 1.

    Example:
        >>> from snn_sparsity.attacks import PGD
        >>> AdversarialTraining([PGD(steps=7, keep="last")]).passes
        Passes(forwards=8, backwards=8)
    """

    attacks: list[Attack] | None = None
    probabilities: list[float] | None = None
    share: float = 1.0
    space: Space = "image"
    _attacks: list[Attack] = field(init=False, repr=False)
    _chances: list[float] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        attacks = [FGSM(eps=2 / 255)] if self.attacks is None else self.attacks
        chances = [1 / max(len(attacks), 1)] * len(attacks) if self.probabilities is None else self.probabilities
        if not attacks or len(chances) != len(attacks):
            raise InputError(f"{len(attacks)} attacks with {len(chances)} probabilities are not allowed: give one for each of at least one")
        for chance in chances:
            require_number("probabilities", chance, at_least=0, at_most=1)
        if sum(chances) > 1 + 1e-9:
            raise InputError(f"probabilities={chances} add up to {sum(chances):.4g}: give at most 1")
        require_number("share", self.share, at_least=0, at_most=1)
        require_choice("space", self.space, ("image", "spikes"))
        object.__setattr__(self, "_attacks", attacks)
        object.__setattr__(self, "_chances", chances)

    def __call__(self, step: TrainingStep) -> Outcome:
        """Attack the batch and return the cross-entropy of what comes of it; ``train/accuracy`` is that on it."""
        number, attack = step.draw(CHOICE), None
        for candidate, chance in zip(self._attacks, self._chances, strict=True):
            number -= chance
            if number < 0:
                attack = candidate
                break
        else:
            # Chances of thirds add up to less than 1 by rounding.
            attack = self._attacks[-1] if sum(self._chances) > 1 - 1e-9 else None
        spikes = step.batch.spikes if attack is None else step.attacked(attack, self.space, step.first(self.share))
        logits, labels = step.logits(spikes), step.batch.labels
        return Outcome(F.cross_entropy(logits, labels), {ACCURACY: (logits.argmax(1) == labels).float().mean()})

    @property
    def passes(self) -> Passes:
        """Those of the dearest attack, on the share that is attacked, and one of each."""
        dearest = max(self._attacks, key=lambda attack: sum(attack.passes)).passes
        shares = (1 + self.share * count for count in dearest)
        return Passes(*(int(share) if share.is_integer() else share for share in map(float, shares)))  # type: ignore[arg-type]  # as many as fields

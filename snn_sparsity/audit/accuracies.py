"""The four accuracies of a protocol, and what lies between them."""

from dataclasses import dataclass

from snn_sparsity.audit.outcomes import COUNTED, Case
from snn_sparsity.audit.statistics import Share, in_points, mcnemar, wilson

GROUPS = {"clean": (), "claim": ("claim",), "standard": ("standard",), "worst": COUNTED}


@dataclass(frozen=True)
class Accuracies:
    """How many samples stay right, per example: under no attack, the one under audit, the standard ones, and all.

    Attributes:
        right: Number of samples by name (clean, claim, standard, worst); what was not measured is missing.
        samples: Of how many.
        p_value: Of the exact McNemar test of standard against worst.
        chance: Accuracy of guessing.
    """

    right: dict[str, int]
    samples: int
    p_value: float | None
    chance: float | None

    @classmethod
    def of(cls, case: Case) -> "Accuracies":
        """Count them in a protocol's outcomes."""
        right = {name: case.right(*groups) for name, groups in GROUPS.items() if name == "clean" or case.done(*groups)}
        p_value = mcnemar(right["standard"], right["worst"]) if "standard" in right else None
        return cls({name: int(mask.sum()) for name, mask in right.items()}, case.samples, p_value, case.chance)

    def share(self, name: str) -> Share | None:
        """Return an accuracy with its interval; None if it was not measured."""
        return wilson(self.right[name], self.samples) if name in self.right else None

    @property
    def weak(self) -> float | None:
        """Omega_weak: what the standard attacks break beyond the one under audit, in points."""
        return self._between("claim", "standard")

    @property
    def masked(self) -> float | None:
        """Omega_mask: what all attacks break beyond the standard ones, in points."""
        return self._between("standard", "worst")

    @property
    def masked_share(self) -> float | None:
        """Phi: the masked part of the standard accuracy; 0 where that is 0."""
        if "standard" not in self.right:
            return None
        standard = self.right["standard"]
        return (standard - self.right["worst"]) / standard if standard else 0.0

    @property
    def falls_to_chance(self) -> bool:
        """Whether the worst case is consistent with chance and the standard accuracy is not."""
        standard, worst = self.share("standard"), self.share("worst")
        if self.chance is None or standard is None or worst is None:
            return False
        return worst.includes(self.chance) and not standard.includes(self.chance)

    def _between(self, high: str, low: str) -> float | None:
        if not {high, low} <= self.right.keys():
            return None
        return in_points(self.right[high] - self.right[low], self.samples)

"""Image by image: who was attacked, who was fooled."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from snn_sparsity.audit.evidence import AttackEvidence

Mask = NDArray[np.bool_]


def fooled(attacks: Iterable[AttackEvidence], samples: int) -> Mask:
    """Return who is fooled by what one of the attacks returned, [n]."""
    return _any((one.fooled for one in attacks), samples, (True,))


def seen(attacks: Iterable[AttackEvidence], samples: int) -> Mask:
    """Return who is fooled by a legal input that one of the attacks looked at, [n]."""
    return _any((one.seen for one in attacks), samples, (True,))


def tried(attacks: Iterable[AttackEvidence], samples: int) -> Mask:
    """Return who was attacked, [n]."""
    return _any((one.fooled for one in attacks), samples, (True, False))


def _any(answers: Iterable[list[bool | None]], samples: int, wanted: tuple[bool, ...]) -> Mask:
    hit = np.zeros(samples, dtype=bool)
    for answer in answers:
        hit[: len(answer)] |= np.array([value in wanted for value in answer[:samples]], dtype=bool)
    return hit

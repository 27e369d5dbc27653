"""Who attacks the networks of the causal experiment, and how: names and numbers, without a network."""

from collections.abc import Mapping
from typing import Literal, get_args

Attacker = Literal["own", "first", "random", "ties", "uniform"]
ATTACKERS: tuple[Attacker, ...] = get_args(Attacker)
"""Whose gradient a window of the pooling has, as the attacker takes it."""
PURE: tuple[Attacker, Attacker] = ("first", "uniform")
"""The sparsest attacker and the densest."""
Mode = Literal["spikes_eval", "spikes_batch", "pixels"]
MODES: tuple[Mode, ...] = get_args(Mode)
TITLES: Mapping[Mode, str] = {
    "spikes_eval": "spikes, BatchNorm eval",
    "spikes_batch": "spikes, BatchNorm batch (the paper's)",
    "pixels": "pixels, BatchNorm eval (strict)",
}
STEPS = (1, 7, 20)
EPS, ALPHA, CODEBOOK_STEPS = 8 / 255, 0.01, 10


def attacks_in(mode: Mode) -> tuple[str, ...]:
    """Return the names of the attacks made in a mode, the weakest first.

    Example:
        >>> attacks_in("pixels"), attacks_in("spikes_eval")
        (('codebook_10',), ('pgd_1', 'pgd_7', 'pgd_20'))
    """
    return (f"codebook_{CODEBOOK_STEPS}",) if mode == "pixels" else tuple(f"pgd_{steps}" for steps in STEPS)


def same_as(attacker: Attacker, pooling: str) -> Attacker:
    """Return the share that an attacker's gradient is, to the bit: max pooling's own is ``first``, average pooling's ``uniform``.

    Example:
        >>> same_as("own", "max"), same_as("own", "avg"), same_as("ties", "max")
        ('first', 'uniform', 'ties')
    """
    return attacker if attacker != "own" else "first" if pooling == "max" else "uniform"

"""Random numbers that depend on a key alone, never on the global random state."""

import torch


def mix(*key: int) -> int:
    """Return one seed for a key such as (seed, epoch, purpose); the order of its parts matters."""
    mixed = 0
    for part in key:
        # A step of Knuth's MMIX linear congruential generator a part.
        mixed = ((mixed ^ part) * 6364136223846793005 + 1442695040888963407) % 2**63
    return mixed


def stream(*key: int) -> torch.Generator:
    """Return a fresh CPU generator for a key; equal keys give equal numbers.

    Example:
        >>> bool((torch.rand(3, generator=stream(1, 2)) == torch.rand(3, generator=stream(1, 2))).all())
        True
    """
    return torch.Generator().manual_seed(mix(*key))

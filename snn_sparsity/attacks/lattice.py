"""Whole grey levels: what eps means, and what is drawn, where images have 8 bits."""

from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from snn_sparsity.attacks.base import Attack
from snn_sparsity.units import Levels
from snn_sparsity.validation import InputError

AnyAttack = TypeVar("AnyAttack", bound=Attack)


def whole_levels(eps: float) -> int:
    """Return eps in grey levels, ``255 eps``.

    Raises:
        InputError: If that is not a whole number, so that the ball's edge is no 8-bit image.

    Example:
        >>> whole_levels(8 / 255)
        8
    """
    levels = round(255 * eps)
    if abs(255 * eps - levels) > 0.01:
        raise InputError(
            f"eps={eps} is {255 * eps:.2f} grey levels: in image space give a whole number, such as {levels}/255 = {levels / 255:.6f}"
        )
    return levels


def lattice_radius(eps: float) -> Levels:
    """Return eps as exactly the whole number of grey levels that it means: 0.0314 is as good a way to write 8/255 as any.

    Raises:
        InputError: If it is no whole number of grey levels.
    """
    return Levels(whole_levels(eps) / 255)


def on_lattice(attack: AnyAttack) -> AnyAttack:
    """Return the attack with the whole number of grey levels that its eps means, so that rounding leaves no ball.

    Raises:
        InputError: If eps is no whole number of grey levels.

    Example:
        >>> from snn_sparsity.attacks import PGD
        >>> on_lattice(PGD(eps=0.0314)).eps
        8/255
    """
    eps = lattice_radius(attack.eps)
    return attack if eps == attack.eps else replace(attack, eps=eps)


def random_levels(x: Tensor, eps: float, generator: torch.Generator | None) -> Tensor:
    """Draw a whole number of grey levels in [-eps, eps], each as likely, for each element, of the shape of x in [0,1].

    Raises:
        InputError: If eps is no whole number of grey levels.
    """
    generator = generator or torch.Generator().manual_seed(0)
    radius = whole_levels(eps)
    levels = torch.randint(-radius, radius + 1, x.shape, generator=generator, device=generator.device)
    return levels.to(x) / 255

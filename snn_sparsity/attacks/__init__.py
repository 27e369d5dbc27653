"""Attacks: frozen objects, ``attack(target, x, labels, generator) -> x_adv``."""

from snn_sparsity.attacks.base import Attack, Target
from snn_sparsity.attacks.codebook import CodeBookAscent
from snn_sparsity.attacks.fgsm import FGSM
from snn_sparsity.attacks.pgd import PGD

__all__ = ["FGSM", "PGD", "Attack", "CodeBookAscent", "Target"]

"""Attacks: frozen objects, ``attack(target, x, labels, generator) -> x_adv``."""

from snn_sparsity.attacks.annealed import AnnealedPGD
from snn_sparsity.attacks.apgd import APGD
from snn_sparsity.attacks.base import Attack, Target
from snn_sparsity.attacks.bpda import BPDA
from snn_sparsity.attacks.codebook import CodeBookAscent
from snn_sparsity.attacks.eot import EOT
from snn_sparsity.attacks.fgsm import FGSM
from snn_sparsity.attacks.flips import RandomFlips, SpikeFlips
from snn_sparsity.attacks.hopskipjump import HopSkipJump
from snn_sparsity.attacks.mdse import MDSE
from snn_sparsity.attacks.noise import Noise
from snn_sparsity.attacks.pgd import PGD
from snn_sparsity.attacks.rays import RayS
from snn_sparsity.attacks.sapgd import SAPGD
from snn_sparsity.attacks.spsa import SPSA
from snn_sparsity.attacks.square import Square
from snn_sparsity.attacks.swap import Swap
from snn_sparsity.attacks.transfer import Transfer

__all__ = [
    "APGD",
    "BPDA",
    "EOT",
    "FGSM",
    "MDSE",
    "PGD",
    "SAPGD",
    "SPSA",
    "AnnealedPGD",
    "Attack",
    "CodeBookAscent",
    "HopSkipJump",
    "Noise",
    "RandomFlips",
    "RayS",
    "SpikeFlips",
    "Square",
    "Swap",
    "Target",
    "Transfer",
]

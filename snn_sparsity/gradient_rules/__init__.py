"""Backward rules: what an attacker may assume about derivatives, without moving one logit bit."""

from snn_sparsity.gradient_rules.adaptive import ASSG, PDSG
from snn_sparsity.gradient_rules.base import GradientRule
from snn_sparsity.gradient_rules.pooling import PoolGradient
from snn_sparsity.gradient_rules.rates import BPTR, HART, RGA
from snn_sparsity.gradient_rules.resets import DetachedReset
from snn_sparsity.gradient_rules.straight_through import StraightThrough, Unblocked
from snn_sparsity.gradient_rules.surrogates import SurrogateShape

__all__ = [
    "ASSG",
    "BPTR",
    "HART",
    "PDSG",
    "RGA",
    "DetachedReset",
    "GradientRule",
    "PoolGradient",
    "StraightThrough",
    "SurrogateShape",
    "Unblocked",
]

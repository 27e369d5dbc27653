"""Backward rules: what an attacker may assume about derivatives, without moving one logit bit."""

from snn_sparsity.gradient_rules.adaptive import AdaptiveSharpness, PotentialDependent
from snn_sparsity.gradient_rules.base import GradientRule
from snn_sparsity.gradient_rules.pooling import PoolGradient
from snn_sparsity.gradient_rules.rates import FiredAtLeastOnce, RateGradient, TimeMeanGradient
from snn_sparsity.gradient_rules.resets import DetachedReset
from snn_sparsity.gradient_rules.surrogates import SurrogateShape

__all__ = [
    "AdaptiveSharpness",
    "DetachedReset",
    "FiredAtLeastOnce",
    "GradientRule",
    "PoolGradient",
    "PotentialDependent",
    "RateGradient",
    "SurrogateShape",
    "TimeMeanGradient",
]

"""Probes, and what else a run leaves behind."""

from snn_sparsity.callbacks.adversarial_accuracy import AdversarialAccuracy
from snn_sparsity.callbacks.gradient_sparsity import GradientSparsity
from snn_sparsity.callbacks.probe import Probe, ProbeContext

__all__ = ["AdversarialAccuracy", "GradientSparsity", "Probe", "ProbeContext"]

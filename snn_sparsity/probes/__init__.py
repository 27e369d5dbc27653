"""Probes: callbacks that measure a network at each validation epoch and leave no trace in its training."""

from snn_sparsity.probes.adversarial_accuracy import AdversarialAccuracy
from snn_sparsity.probes.base import Probe
from snn_sparsity.probes.context import ProbeContext
from snn_sparsity.probes.gradient_sparsity import GradientSparsity
from snn_sparsity.probes.gradient_trail import GradientTrail
from snn_sparsity.probes.pass_probe import PassProbe
from snn_sparsity.probes.sparsity_origin import SparsityOrigin
from snn_sparsity.probes.surrogate_saturation import SurrogateSaturation
from snn_sparsity.probes.synaptic_operations import SynapticOperations
from snn_sparsity.probes.vulnerability_ratio import VulnerabilityRatio

__all__ = [
    "AdversarialAccuracy",
    "GradientSparsity",
    "GradientTrail",
    "PassProbe",
    "Probe",
    "ProbeContext",
    "SparsityOrigin",
    "SurrogateSaturation",
    "SynapticOperations",
    "VulnerabilityRatio",
]

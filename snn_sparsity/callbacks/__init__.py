"""Probes, and what else a run leaves behind."""

from snn_sparsity.callbacks.adversarial_accuracy import AdversarialAccuracy
from snn_sparsity.callbacks.figures import Figures
from snn_sparsity.callbacks.gradient_sparsity import GradientSparsity
from snn_sparsity.callbacks.gradient_trail import GradientTrail
from snn_sparsity.callbacks.pass_probe import PassProbe
from snn_sparsity.callbacks.probe import Probe, ProbeContext
from snn_sparsity.callbacks.robustness_audit import RobustnessAudit
from snn_sparsity.callbacks.sparsity_origin import SparsityOrigin
from snn_sparsity.callbacks.surrogate_saturation import SurrogateSaturation
from snn_sparsity.callbacks.synaptic_operations import SynapticOperations
from snn_sparsity.callbacks.vulnerability_ratio import VulnerabilityRatio

__all__ = [
    "AdversarialAccuracy",
    "Figures",
    "GradientSparsity",
    "GradientTrail",
    "PassProbe",
    "Probe",
    "ProbeContext",
    "RobustnessAudit",
    "SparsityOrigin",
    "SurrogateSaturation",
    "SynapticOperations",
    "VulnerabilityRatio",
]

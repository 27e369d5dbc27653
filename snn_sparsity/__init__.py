"""Train spiking ResNets, watch their gradients, attack them, and say how far the result can be believed.

What stands in EXPORTS is public, and so is what is documented in the room it comes from; all else may change without notice. A name is
looked up when it is first used: importing the package imports neither torch nor Lightning.

Example:
    >>> from snn_sparsity import PGD
    >>> PGD(steps=7).steps
    7
"""

import importlib
from typing import Any

__version__ = "0.1.0"

EXPORTS = {
    "snn_sparsity.attacks": ("APGD", "BPDA", "EOT", "FGSM", "PGD", "SAPGD", "AnnealedPGD", "Attack", "CodeBookAscent", "HopSkipJump",
                             "SpikeFlips", "Square"),
    "snn_sparsity.attacks.targets": ("ImageTarget", "PlainTarget", "SpikeTarget"),
    "snn_sparsity.audit": ("audit",),
    "snn_sparsity.classifier": ("SpikingClassifier",),
    "snn_sparsity.data": ("ArrayDataModule", "CIFARDataModule", "DigitsDataModule", "ImageFolderDataModule", "SpikeBatch",
                          "SpikeDataModule"),
    "snn_sparsity.data.images": ("ImageSet", "Splits"),
    "snn_sparsity.encoders": ("DirectEncoder", "Encoder", "LatencyEncoder", "PhaseEncoder", "QuantisedEncoder", "RateEncoder"),
    "snn_sparsity.encoders.base": ("PixelCode",),
    "snn_sparsity.figures.catalogue": ("figure_of",),
    "snn_sparsity.networks": ("VGG", "IFNeuron", "LeakyNeuron", "SEWResNet", "SpikingResNet", "WideResNet"),
    "snn_sparsity.objectives": ("TRADES", "AdversarialTraining", "Objective", "SharedNoise", "SparseGradient"),
    "snn_sparsity.probes": ("AdversarialAccuracy", "GradientSparsity", "GradientTrail", "Probe", "SparsityOrigin",
                            "SurrogateSaturation", "SynapticOperations", "VulnerabilityRatio"),
    "snn_sparsity.runs.curves": ("read_run",),
    "snn_sparsity.training": ("OrthogonalRetraction", "SimplexProjection"),
    "snn_sparsity.training.metrics_logger": ("MetricsCSV",),
    "snn_sparsity.validation": ("InputError",),
}  # fmt: skip
"""Where each public name comes from."""
_HOME = {name: home for home, names in EXPORTS.items() for name in names}

audit: Any  # Nothing but its type, which is that of every name here: a type checker would see a package, and packages cannot be called.

__all__ = [*_HOME, "__version__"]  # noqa: PLE0604  # each is a str


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

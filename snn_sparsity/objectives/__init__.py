"""What a network is trained for: losses of a training step, with the attacks and second looks that they need."""

from snn_sparsity.objectives.adversarial import AdversarialTraining
from snn_sparsity.objectives.base import Objective, Outcome, TrainingStep
from snn_sparsity.objectives.cross_entropy import CrossEntropy
from snn_sparsity.objectives.shared_noise import SharedNoise
from snn_sparsity.objectives.sparse_gradient import SparseGradient
from snn_sparsity.objectives.trades import TRADES

__all__ = ["TRADES", "AdversarialTraining", "CrossEntropy", "Objective", "Outcome", "SharedNoise", "SparseGradient", "TrainingStep"]

"""What a run does around its training steps: records, checkpoints, checks, figures, the table at its end."""

from snn_sparsity.training.ann_start import ANNStart
from snn_sparsity.training.cuda_graphs import CUDAGraphs
from snn_sparsity.training.figures import Figures
from snn_sparsity.training.robustness_audit import RobustnessAudit
from snn_sparsity.training.weight_constraints import OrthogonalRetraction, SimplexProjection

__all__ = ["ANNStart", "CUDAGraphs", "Figures", "OrthogonalRetraction", "RobustnessAudit", "SimplexProjection"]

"""What a run does around its training steps: records, checkpoints, checks, figures, the table at its end."""

from snn_sparsity.training.figures import Figures
from snn_sparsity.training.robustness_audit import RobustnessAudit

__all__ = ["Figures", "RobustnessAudit"]

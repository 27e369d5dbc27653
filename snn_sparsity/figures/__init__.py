"""Figures of finished runs; nothing of training is imported here."""

from snn_sparsity.figures.catalogue import FIGURES, available, figure_of
from snn_sparsity.runs.curves import Run, read_run

__all__ = ["FIGURES", "Run", "available", "figure_of", "read_run"]

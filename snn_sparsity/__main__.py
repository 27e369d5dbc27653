"""``python -m snn_sparsity`` is ``snn-sparsity``."""

from snn_sparsity.cli import console

console()

"""``python -m snn_sparsity`` is ``snn-sparsity``."""

from snn_sparsity.commands.main import console

console()

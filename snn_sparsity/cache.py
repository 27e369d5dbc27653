"""Where the package keeps what it can make again: decoded datasets and compiled kernels."""

import os
from pathlib import Path


def cache_directory() -> Path:
    """Return where datasets and kernels are kept: ``$SNN_SPARSITY_CACHE``, or ``snn_sparsity`` in the user's cache directory."""
    if given := os.environ.get("SNN_SPARSITY_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "snn_sparsity"

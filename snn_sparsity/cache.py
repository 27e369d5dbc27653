"""Where the package keeps what it can make again: decoded datasets and compiled kernels."""

import os
from pathlib import Path


def cache_directory() -> Path:
    """Return where datasets and kernels are kept: ``$SNN_SPARSITY_CACHE``, or ``snn_sparsity`` in the user's cache directory."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "snn_sparsity"
    return Path(os.environ.get("SNN_SPARSITY_CACHE", default))

"""Where the package keeps what it can make again: decoded datasets and compiled kernels."""

import os
import tempfile
from pathlib import Path


def cache_directory() -> Path:
    """Return where datasets and kernels are kept: ``$SNN_SPARSITY_CACHE``, or ``snn_sparsity`` in the user's cache directory.

    A user without a home, as a container's may be, has it in the folder for temporary files.
    """
    if given := os.environ.get("SNN_SPARSITY_CACHE"):
        return Path(given)
    home = os.path.expanduser("~")
    mine = os.path.join(home, ".cache") if home != "~" else os.path.join(tempfile.gettempdir(), f"cache-{os.getuid()}")
    return Path(os.environ.get("XDG_CACHE_HOME") or mine) / "snn_sparsity"

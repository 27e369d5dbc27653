"""The checks, a file each: V1, V2 and so on, found by walking this folder."""

import importlib
import pkgutil

from snn_sparsity.audit.judge.checks.base import Check


def all_checks() -> list[Check]:
    """Return every check, in the order of their numbers."""
    names = sorted(info.name for info in pkgutil.iter_modules(__path__) if info.name != "base")
    return [importlib.import_module(f"{__name__}.{name}").CHECK for name in names]


CHECKS = all_checks()

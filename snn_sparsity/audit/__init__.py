"""The audit: how far a robustness number can be believed.

The room is its own front door: ``from snn_sparsity import audit; audit(model, images, labels)`` is :func:`snn_sparsity.audit.run.audit`.
"""

import sys
from types import ModuleType
from typing import Any


class _Room(ModuleType):
    """A package that can be called; what it calls is imported at the first call."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        from snn_sparsity.audit.run import audit

        return audit(*arguments, **named)


# Under its public name as well: an export is looked up in the room that it comes from.
audit: Any = sys.modules[__name__]
audit.__class__ = _Room

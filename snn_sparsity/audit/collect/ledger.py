"""What an audit has done so far: results in the journal, progress that is told, and what was left out."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from snn_sparsity.audit.collect.journal import Journal
from snn_sparsity.audit.evidence import NotRun

Tell = Callable[[str, float, float], None]
"""Told of what is done: the name of the work, units done, units in all; a unit is a forward pass of an image."""


@dataclass
class Ledger:
    """Each result once, with its cost.

    Args:
        journal: Where results are kept.
        tell: Told of progress.
    """

    journal: Journal
    tell: Tell = lambda name, done, total: None
    not_run: list[NotRun] = field(default_factory=list, init=False)
    done: float = field(default=0.0, init=False)
    planned: float = field(default=0.0, init=False)

    def once(self, name: str, units: float, compute: Callable[[], Any]) -> Any:
        """Return a result of the journal, and tell of it."""
        self.tell(name, self.done, self.planned)
        result = self.journal.once(name, compute)
        self.done += units
        self.tell(name, self.done, self.planned)
        return result

    def plan(self, units: float) -> None:
        """Count on more units, or on fewer."""
        self.planned += units

    def missing(self, what: str, why: str) -> None:
        """Note what did not run."""
        self.not_run.append(NotRun(what=what, why=why))

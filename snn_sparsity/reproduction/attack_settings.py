"""What was attacked and how: protocols and attacks as the runs' settings tell them. Numbers of two protocols never share a column."""

import math
import re
from typing import Any, NamedTuple

from snn_sparsity.protocols import PAPER, STRICT, Protocol
from snn_sparsity.reproduction.paper import paper
from snn_sparsity.runs.records import ATTACKED, Record
from snn_sparsity.units import Levels


class AttackSettings(NamedTuple):
    """An attack with every setting it has.

    Attributes:
        protocol: What it attacks.
        name: Its class.
        settings: Name and value of each setting.
    """

    protocol: Protocol
    name: str
    settings: tuple[tuple[str, Any], ...]

    @property
    def label(self) -> str:
        """Short name, with what is attacked."""
        return f"{self.short} ({self.protocol.space}, BN {self.protocol.batch_norm})"

    @property
    def short(self) -> str:
        """Name and number of steps, where all else is said beside it."""
        steps = dict(self.settings).get("steps")
        return f"{self.name}{f'-{steps}' if steps else ''}"

    @property
    def details(self) -> str:
        """Every setting; eps and alpha as shares of 255 where they are such."""
        shown = [(name, Levels(value) if isinstance(value, float) else value) for name, value in self.settings]
        return f"{self.name}({', '.join(f'{name}={value}' for name, value in shown)})"

    @property
    def column(self) -> str:
        """The paper's column (``fgsm`` or ``pgd``) that this attack is; empty if it is none of them."""
        if self.protocol == PAPER:
            for column, wanted in paper()["attacks"].items():
                if all(
                    _equal({"class": self.name, **dict(self.settings)}.get(name, _frozen(value)), _frozen(value))
                    for name, value in wanted.items()
                ):
                    return str(column)
        return ""


def attacks_of(record: Record) -> dict[str, AttackSettings]:
    """Return the attacks of a run by the name of their probe, those of the paper first, in the paper's order."""
    draws = record.record.get("eot_draws", {})
    found = {}
    for name, probe in record.probes.items():
        if probe["class"] == ATTACKED:
            attack = dict(probe["attack"]) | ({"eot_draws": draws[name]} if draws.get(name) else {})
            kind = str(attack.pop("class"))
            settings = tuple((key, _frozen(value)) for key, value in attack.items())
            found[name] = AttackSettings(Protocol(probe["space"], probe["batch_norm"]), kind, settings)
    return dict(sorted(found.items(), key=lambda item: (order(item[1].protocol), item[1].column or "~", item[1].details)))


def order(protocol: Protocol) -> tuple[bool, bool, Protocol]:
    """Return what sorts protocols: the paper's, the strict one, others."""
    return protocol != PAPER, protocol != STRICT, protocol


def _frozen(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(r"-?\d+/255", value):
        return Levels(value)
    return tuple(value) if isinstance(value, list) else str(value) if isinstance(value, dict) else value


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float | int):
        return math.isclose(one, other, rel_tol=1e-6)
    return bool(one == other)

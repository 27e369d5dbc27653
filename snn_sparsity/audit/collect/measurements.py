"""What one protocol measures beside its attacks: the harness, the diagnostics, the control, planted examples."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from snn_sparsity.audit.collect import diagnostics
from snn_sparsity.audit.collect.battery import cost
from snn_sparsity.audit.collect.control import control
from snn_sparsity.audit.collect.harness import harness
from snn_sparsity.audit.collect.outcomes import legality, rounded
from snn_sparsity.audit.collect.planted import POINTS, planted
from snn_sparsity.audit.collect.sequence import AttackSequence
from snn_sparsity.audit.evidence import Control, Diagnostics, Harness, Planted
from snn_sparsity.validation import InputError

HARNESS_IMAGES = 8


@dataclass(frozen=True)
class Measurements:
    """Measurements of one protocol, after its attacks.

    Args:
        attacks: What was attacked, and how it went.
    """

    attacks: AttackSequence

    def harness(self) -> Harness:
        """Is what was attacked a function, and the right one (V1 to V5)?"""
        work = self.attacks.work
        rules, few = self.attacks.battery.rules(), list(range(min(HARNESS_IMAGES, len(work.clean))))
        found = self._measure("harness", lambda: harness(work.subject, self.attacks.protocol, few, rules))
        return Harness(**found | legality(self.attacks.records))

    def diagnostics(self) -> Diagnostics:
        """What the other checks look at."""
        work, protocol = self.attacks.work, self.attacks.protocol
        subject, eps, few = work.subject, work.eps, work.right[: work.budget.probes]
        found = self._measure("pixel noise", lambda: diagnostics.pixel_noise(subject, list(range(len(work.clean))), eps))
        found |= rounded(self.attacks.quoted, len(work.clean))
        if protocol.drifts or not few:
            return Diagnostics(**found)
        found |= self._measure("zero entries", lambda: diagnostics.zero_entries(subject, protocol, few))
        if protocol.perturbation == "linf":
            found |= self._measure("loss under noise", lambda: diagnostics.loss_under_noise(subject, protocol, few, work.budget.noise, eps))
            found |= self._measure("landscape", lambda: diagnostics.landscape(subject, protocol, few, eps))
            found |= self._measure("fidelity", lambda: diagnostics.gradient_fidelity(subject, protocol, few, eps))
        found["vanishing"] = {}
        if work.facts.spiking:
            found |= self._measure("surrogate cosine", lambda: diagnostics.surrogate_cosine(subject, few))
            found |= self._measure("vanishing", lambda: diagnostics.vanishing(subject, few))
        # V14: a network that is known to fall must fall.
        fall: dict[str, Any] = {}
        if work.training is not None:
            attacks = [self.attacks.battery.host("ce"), self.attacks.battery.host()]
            fall = self._measure("control", lambda: control(subject, protocol, attacks, work.reference))
        finds = self._measure("planted examples", self._plant)
        return Diagnostics(**found, control=Control(**fall) if fall else None, planted=Planted(**finds) if finds else None)

    def _measure(self, name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return a measurement; one that breaks says nothing, and the audit goes on."""

        def safely() -> dict[str, Any]:
            try:
                with subject.drawing(zlib.crc32(name.encode())):
                    return compute()
            except Exception as error:  # noqa: BLE001  # whatever breaks in one measurement is reported
                return {"failed": str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"}

        name, subject, ledger = f"{self.attacks.protocol.name}: {name}", self.attacks.work.subject, self.attacks.work.ledger
        result: dict[str, Any] = ledger.once(name, 0.0, safely)
        if "failed" in result:
            ledger.missing(name, result["failed"])
        return {key: value for key, value in result.items() if key != "failed"}

    def _plant(self) -> dict[str, Any]:
        """V15: the share of planted examples that the attack finds, and that noise finds."""
        work, battery, protocol = self.attacks.work, self.attacks.battery, self.attacks.protocol
        if not work.budget.planted:
            raise InputError("this budget plants none: a thousand forward passes for each image")
        attacks = {
            "found": battery.host(steps=(1 + battery.coded) * work.budget.steps),
            "found_by_noise": protocol.noise(work.eps, work.budget.noise),
        }
        units = POINTS + sum(map(cost, attacks.values()))
        done: list[dict[str, bool]] = []
        for place in work.right:
            work.ledger.plan(units)
            plant = partial(planted, work.subject, protocol, place, attacks)
            result = work.ledger.once(f"{protocol.name}: planted [{place}]", units, plant)
            done += [result] if result else []
            if len(done) == work.budget.planted:
                break
        if not done:
            raise InputError("no read-out of the features tells a corner of the ball from its inside")
        return {"samples": len(done), **{name: sum(result[name] for result in done) / len(done) for name in attacks}}

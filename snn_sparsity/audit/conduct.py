"""The audit itself: protocol by protocol, attack by attack, batch by batch, each result journaled as soon as it is there."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.pooling import _MaxPoolNd

from snn_sparsity.attacks import PGD, CodeBookAscent, Noise, Transfer
from snn_sparsity.attacks.base import Attack
from snn_sparsity.audit import diagnostics
from snn_sparsity.audit.attacking import Record, attack_batch
from snn_sparsity.audit.battery import POOLS, RULES, Budget, Facts, Job, jobs, step_length
from snn_sparsity.audit.control import control, trained_reference
from snn_sparsity.audit.evidence import legality, outcome_of, rebinarised, without_object
from snn_sparsity.audit.harness import SAME, harness
from snn_sparsity.audit.journal import Journal
from snn_sparsity.audit.planted import POINTS, planted
from snn_sparsity.audit.subject import PROTOCOLS, Protocol, Subject
from snn_sparsity.measure.operations import MODULE_TYPES
from snn_sparsity.networks.rate_twin import MeanOverTime, rate_twin
from snn_sparsity.validation import InputError

Tell = Callable[[str, float, float], None]
"""Told of what is done: the name of the work, units done, units in all; a unit is a forward pass of an image."""
HARNESS_IMAGES = 8
NEVER_RUN = (
    {"what": "FAB, HopSkipJump and Boundary", "why": "their line searches step less than a grey level; RayS looks at winners alone too"},
)


@dataclass
class Audit:
    """An audit of one subject; ``run`` returns the evidence that the verdict is made from.

    Args:
        subject: What is audited.
        protocols: Names of protocols.
        budget: How much.
        eps: Radius of the ball.
        journal: Where results are kept.
        training: Images and labels for the positive control; None leaves it out.
        source: A second classifier to transfer attacks from; None leaves it out.
        tell: Told of progress.
    """

    subject: Subject
    protocols: Sequence[str]
    budget: Budget
    eps: float
    journal: Journal
    training: tuple[Tensor, Tensor] | None = None
    source: nn.Module | None = None
    tell: Tell = lambda name, done, total: None
    _not_run: list[dict[str, str]] = field(default_factory=list, init=False)
    _done: float = field(default=0.0, init=False)
    _total: float = field(default=0.0, init=False)

    def run(self) -> dict[str, Any]:
        """Run everything that the journal does not hold yet."""
        facts = self._facts()
        clean = self.journal.once("clean", self._clean)
        plan = {name: [*jobs(name, self.budget, self.eps, facts), *self._transfers(PROTOCOLS[name], facts)] for name in self.protocols}
        self._total = sum(_cost(job.attack) * len(clean) for batch in plan.values() for job in batch)
        right = [place for place, hit in enumerate(clean) if hit]
        protocols = {name: self._protocol(PROTOCOLS[name], batch, right, facts) for name, batch in plan.items()}
        return {"labels": self.subject.labels.tolist(), "clean": clean, "protocols": protocols, "not_run": [*NEVER_RUN, *self._not_run]}

    def _facts(self) -> Facts:
        modules = list(self.subject.classifier.modules())
        return Facts(
            random=self.subject.encoder.stochastic or not self._repeats(),
            spiking=any(isinstance(module, MODULE_TYPES["neuron"]) for module in modules),
            max_pooling=any(isinstance(module, _MaxPoolNd) for module in modules),
            code_book=hasattr(self.subject.encoder, "code_book"),
            num_classes=self.subject.num_classes,
        )

    def _repeats(self) -> bool:
        evidence = harness(self.subject, PROTOCOLS["spikes"], self._first(HARNESS_IMAGES), {})
        return bool(evidence["deterministic"]) and evidence["logit_gap_repeat"] <= SAME

    def _clean(self) -> list[bool]:
        right: list[bool] = []
        for number, batch in enumerate(self.subject.batches(self._first(len(self.subject.labels)))):
            x, labels = self.subject.inputs(PROTOCOLS["spikes"], batch, self.subject.generator(0, number))
            logits = self.subject.target(PROTOCOLS["spikes"], self.subject.generator(0)).judge(x)
            right += (logits.argmax(1) == labels).tolist()
        return right

    def _first(self, count: int) -> list[int]:
        return list(range(min(count, len(self.subject.labels))))

    def _protocol(self, protocol: Protocol, plan: list[Job], right: list[int], facts: Facts) -> dict[str, Any]:
        outcomes = self._outcomes(protocol, plan, right) + without_object(protocol, facts, len(self.subject.labels))
        evidence: dict[str, Any] = {"space": protocol.space, "batch_norm": protocol.batch_norm}
        rules = RULES | POOLS if facts.spiking else {}
        evidence["harness"] = self._measure(
            protocol, "harness", lambda: harness(self.subject, protocol, self._first(HARNESS_IMAGES), rules)
        )
        evidence["harness"] |= legality(outcomes)
        evidence["diagnostics"] = self._diagnostics(protocol, right, outcomes, facts)
        evidence["attacks"] = [{key: value for key, value in outcome.items() if not key.startswith("_")} for outcome in outcomes]
        return evidence

    def _transfers(self, protocol: Protocol, facts: Facts) -> list[Job]:
        """Attacks crafted on the same weights without spikes, and on a second network."""
        if protocol.name == "paper":
            return []
        sources = {"second network": self.source} if self.source is not None else {}
        network = getattr(self.subject.classifier, "network", None)
        if facts.spiking and network is not None:
            sources["rate twin"] = MeanOverTime(rate_twin(network))
        host = self._host(protocol, facts, self.eps, self.budget.steps)
        generator = self.subject.generator(10)
        return [
            Job(name, "transfer", Transfer(replace(self.subject, classifier=source.eval()).target(protocol, generator), host, eps=self.eps))
            for name, source in sources.items()
        ]

    # Attacks -----------------------------------------------------------------------------------------------------------------

    def _outcomes(self, protocol: Protocol, plan: list[Job], right: list[int]) -> list[dict[str, Any]]:
        outcomes: list[dict[str, Any]] = []
        saturated = False
        left = {"standard": right, "claim": right}
        for job in plan:
            group = job.group if job.group != "scale-free" else "rules" if saturated else "standard"
            places = self._places(protocol, group, [outcome["group"] for outcome in outcomes], right, left)
            # The plan counted on all images.
            self._total -= _cost(job.attack) * len(self.subject.labels)
            outcome = self._attack(protocol, job._replace(group=group), places)
            outcomes.append(outcome)
            left[group] = [place for place in left.get(group, places) if outcome["fooled"][place] is not True]
            saturated = saturated or (group == "standard" and outcome["zero_gradient_start"] > 0)
        return outcomes

    def _places(self, protocol: Protocol, group: str, before: list[str], right: list[int], left: dict[str, list[int]]) -> list[int]:
        """Return which images an attack of this group gets, after attacks of the groups ``before``."""
        if protocol.batch_norm == "batch":
            # The others in a batch take part in its statistics.
            return self._first(len(self.subject.labels))
        # One-step against iterative (V13) is a comparison of pairs: the first two attack everybody.
        if group == "claim" or (group == "standard" and before.count("standard") < 2):
            return right
        return left.setdefault(group, left["standard"])

    def _attack(self, protocol: Protocol, job: Job, places: list[int]) -> dict[str, Any]:
        key = (zlib.crc32(protocol.name.encode()), zlib.crc32(f"{job.group} {job.name}".encode()))
        self._total += _cost(job.attack) * len(places)
        name = f"{protocol.name}: {job.name}"
        if protocol.batch_norm == "batch":
            # BatchNorm's statistics drift from batch to batch: it is all or nothing.
            records = self._once(name, _cost(job.attack) * len(places), lambda: self._drifting(protocol, job.attack, places, key))
        else:
            records = [
                self._once(
                    f"{name} [{index}]",
                    _cost(job.attack) * len(batch),
                    partial(attack_batch, self.subject, protocol, job.attack, batch, (*key, index)),
                )
                for index, batch in enumerate(self.subject.batches(places))
            ]
        return outcome_of(job, records, len(self.subject.labels))

    def _drifting(self, protocol: Protocol, attack: Attack, places: list[int], key: tuple[int, ...]) -> list[Record]:
        target = self.subject.target(protocol, self.subject.generator(*key))
        batches = self.subject.batches(places)
        return [attack_batch(self.subject, protocol, attack, batch, (*key, index), target) for index, batch in enumerate(batches)]

    def _once(self, name: str, cost: float, compute: Callable[[], Any]) -> Any:
        self.tell(name, self._done, self._total)
        result = self.journal.once(name, compute)
        self._done += cost
        self.tell(name, self._done, self._total)
        return result

    # Diagnostics -------------------------------------------------------------------------------------------------------------

    def _measure(self, protocol: Protocol, name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return a measurement; one that breaks says nothing, and the audit goes on."""

        def safely() -> dict[str, Any]:
            try:
                return compute()
            except Exception as error:  # noqa: BLE001  # whatever breaks in one measurement is reported
                return {"failed": str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"}

        result: dict[str, Any] = self._once(f"{protocol.name}: {name}", 0.0, safely)
        if "failed" in result:
            self._not_run.append({"what": f"{protocol.name}: {name}", "why": result["failed"]})
        return {key: value for key, value in result.items() if key != "failed"}

    def _diagnostics(self, protocol: Protocol, right: list[int], outcomes: list[dict[str, Any]], facts: Facts) -> dict[str, Any]:
        subject, few = self.subject, right[: self.budget.probes]
        found: dict[str, Any] = {"clean_accuracy": len(right) / max(len(subject.labels), 1)}

        def measure(name: str, compute: Callable[[], dict[str, Any]]) -> None:
            found.update(self._measure(protocol, name, compute))

        measure("pixel noise", lambda: diagnostics.pixel_noise(subject, self._first(len(subject.labels))))
        if protocol.name == "paper":
            measure("BatchNorm", lambda: diagnostics.batch_norm(subject, self._first(len(subject.labels)), self.eps))
            return found | rebinarised(outcomes)
        if not few:
            return found
        measure("zero entries", lambda: diagnostics.zero_entries(subject, protocol, few))
        measure("loss under noise", lambda: diagnostics.loss_under_noise(subject, protocol, few, self.budget.noise))
        measure("landscape", lambda: diagnostics.landscape(subject, protocol, few))
        measure("fidelity", lambda: diagnostics.fidelity(subject, protocol, few, self.eps))
        measure("zero fill", lambda: diagnostics.zero_filled(subject, protocol, few, self.eps))
        found["vanishing"] = {}
        if facts.spiking:
            measure("surrogate cosine", lambda: diagnostics.surrogate_cosine(subject, protocol, few))
            measure("vanishing", lambda: diagnostics.vanishing(subject, protocol, few))
        if self.training is not None:
            attacks = [
                self._host(protocol, facts, self.eps, self.budget.steps),
                self._host(protocol, facts, self.eps, 2 * self.budget.steps),
            ]
            measure("control", lambda: control(subject, protocol, attacks, self._reference))
        measure("planted examples", lambda: self._planted(protocol, right, facts))
        survivors = [place for place in right if not any(outcome["fooled"][place] for outcome in outcomes if outcome["group"] != "claim")]
        found |= self._doubling(protocol, survivors, facts) | self._sweep(protocol, right, survivors, facts)
        return found | rebinarised(outcomes)

    def _planted(self, protocol: Protocol, right: list[int], facts: Facts) -> dict[str, Any]:
        """V15: the share of planted examples that the attack finds, and that noise finds."""
        if not self.budget.planted:
            raise InputError("this budget plants none: a thousand forward passes for each image")
        noise = Noise(eps=self.eps, draws=self.budget.noise, kind="levels" if protocol.space == "image" else "uniform")
        attacks = {"found": self._host(protocol, facts, self.eps, self._longest(protocol, facts)), "found_by_noise": noise}
        cost = POINTS + sum(map(_cost, attacks.values()))
        self._total += cost * min(self.budget.planted, len(right))
        done: list[dict[str, bool]] = []
        for place in right:
            plant = partial(planted, self.subject, protocol, place, attacks)
            result = self._once(f"{protocol.name}: planted [{place}]", cost, plant)
            done += [result] if result else []
            if len(done) == self.budget.planted:
                break
        if not done:
            raise InputError("no read-out of the features tells a corner of the ball from its inside")
        return {"planted": {"samples": len(done), **{name: sum(result[name] for result in done) / len(done) for name in attacks}}}

    def _longest(self, protocol: Protocol, facts: Facts) -> int:
        """Return the most steps that an attack of this protocol is given."""
        return 2 * self.budget.steps if protocol.space == "image" and facts.code_book else self.budget.steps

    def _host(self, protocol: Protocol, facts: Facts, eps: float, steps: int) -> Attack:
        if protocol.space == "image" and facts.code_book:
            return CodeBookAscent(eps=eps, steps=steps, loss="margin")
        return PGD(eps=eps, alpha=step_length(eps, steps), steps=steps, loss="margin")

    @cached_property
    def _reference(self) -> nn.Module:
        assert self.training is not None
        return trained_reference(self.subject, *self.training)

    def _doubling(self, protocol: Protocol, survivors: list[int], facts: Facts) -> dict[str, Any]:
        job = Job("steps doubled", "sweep", self._host(protocol, facts, self.eps, 2 * self._longest(protocol, facts)))
        outcome = self._attack(protocol, job, survivors)
        count = len(self.subject.labels)
        broken = sum(outcome["fooled"][place] is True for place in survivors)
        return {"doubling": {"accuracy": len(survivors) / count, "accuracy_doubled": (len(survivors) - broken) / count, "n": count}}

    def _sweep(self, protocol: Protocol, right: list[int], survivors: list[int], facts: Facts) -> dict[str, Any]:
        """V12: accuracy by eps, an image counting as broken at every radius above the one that broke it."""
        count, levels = len(self.subject.labels), round(255 * self.eps)
        points, left = [{"eps": 0.0, "accuracy": len(right) / count}], right
        for radius in sorted({*self.budget.radii, levels}):
            if radius == levels:
                left = [place for place in survivors if place in set(left)]
            else:
                attack = self._host(protocol, facts, radius / 255, self.budget.steps)
                outcome = self._attack(protocol, Job(f"eps {radius}/255", "sweep", attack), left)
                left = [place for place in left if outcome["fooled"][place] is not True]
            points.append({"eps": radius / 255, "accuracy": len(left) / count})
        return {"eps_sweep": points}


def _cost(attack: Attack) -> float:
    """Return units an image: a backward pass is worth two forward passes."""
    return attack.passes.forwards + 2 * attack.passes.backwards

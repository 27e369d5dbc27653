"""The audit itself: protocol by protocol, attack by attack, batch by batch, each result journaled as soon as it is there."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.pooling import _MaxPoolNd

from snn_sparsity.attacks import Noise, Swap, Transfer
from snn_sparsity.attacks.base import Attack, input_gradient
from snn_sparsity.attacks.metering import Meter, Metered
from snn_sparsity.audit.collect import diagnostics
from snn_sparsity.audit.collect.attacking import Record, attack_batch
from snn_sparsity.audit.collect.battery import ANYWHERE, MAIN, UNBOUNDED, Battery, Budget, Facts, Job, cost, quoted
from snn_sparsity.audit.collect.control import control, trained_reference
from snn_sparsity.audit.collect.harness import SAME, harness
from snn_sparsity.audit.collect.journal import Journal
from snn_sparsity.audit.collect.outcomes import legality, outcome_of, rounded
from snn_sparsity.audit.collect.planted import POINTS, planted
from snn_sparsity.audit.collect.subject import PROTOCOLS, Protocol, Subject
from snn_sparsity.audit.evidence import AttackEvidence, Control, Diagnostics, Evidence, Harness, NotRun, Planted, ProtocolEvidence
from snn_sparsity.gradient_rules.base import own_functions, spiking_neurons
from snn_sparsity.gradient_rules.straight_through import blocked_modules
from snn_sparsity.networks.rate_twin import MeanOverTime, rate_twin
from snn_sparsity.validation import InputError

Tell = Callable[[str, float, float], None]
"""Told of what is done: the name of the work, units done, units in all; a unit is a forward pass of an image."""
HARNESS_IMAGES = 8
SWAPS = 8
UNBOUNDED_IMAGES = 64


@dataclass
class Audit:
    """An audit of one subject; ``run`` returns the evidence that the judge reads.

    Args:
        subject: What is audited.
        protocols: Names of protocols.
        budget: How much.
        eps: Radius of the ball.
        journal: Where results are kept.
        training: Images and labels for the positive control; None leaves it out.
        source: A second classifier to transfer attacks from; None leaves it out.
        claim: The quoted attack; None is the paper's PGD.
        tell: Told of progress.
        foresee: Told, before the first attack, of the units in all if no attack breaks an image.
    """

    subject: Subject
    protocols: Sequence[str]
    budget: Budget
    eps: float
    journal: Journal
    training: tuple[Tensor, Tensor] | None = None
    source: nn.Module | None = None
    claim: Attack | None = None
    tell: Tell = lambda name, done, total: None
    foresee: Callable[[float], None] = lambda units: None
    _not_run: list[NotRun] = field(default_factory=list, init=False)
    _done: float = field(default=0.0, init=False)
    _total: float = field(default=0.0, init=False)

    def run(self) -> Evidence:
        """Run everything that the journal does not hold yet."""
        known = dict(self.journal.once("facts", self._facts))
        for path in known.pop("stuck"):
            self.missing(f"straight through {path}", "it blocks the gradient, and its input and output differ in shape")
        facts = Facts(**known | {"blocked": tuple(known["blocked"])})
        facts = facts._replace(idle=self.journal.once("idle rules", lambda: self._idle(facts)))
        self.subject = replace(self.subject, random=facts.random)
        clean = self.journal.once("clean", self._clean)
        self._total = planned(self.protocols, self.budget, self.eps, facts) * sum(clean)
        self.foresee(self._total)
        protocols = {name: _Conduct(self, PROTOCOLS[name], facts, clean).evidence() for name in self.protocols}
        return Evidence(
            eps=self.eps, num_classes=self.subject.num_classes, labels=self.subject.labels.tolist(), clean=clean,
            protocols=protocols, not_run=self._not_run,
        )  # fmt: skip

    def once(self, name: str, units: float, compute: Callable[[], Any]) -> Any:
        """Return a result of the journal, and tell of it."""
        self.tell(name, self._done, self._total)
        result = self.journal.once(name, compute)
        self._done += units
        self.tell(name, self._done, self._total)
        return result

    def replan(self, units: float) -> None:
        """Count on more units, or on fewer."""
        self._total += units

    def missing(self, what: str, why: str) -> None:
        """Note what did not run."""
        self._not_run.append(NotRun(what=what, why=why))

    def first(self, count: int) -> list[int]:
        """Return the places of the first images."""
        return list(range(min(count, len(self.subject.labels))))

    def _facts(self) -> dict[str, Any]:
        subject, modules = self.subject, list(self.subject.classifier.modules())
        why = self._why_no_rules()
        blocked, stuck = self._blocked()
        return {
            "random": subject.encoder.stochastic or not self._repeats(),
            "spiking": not why,
            "why_no_rules": why,
            "max_pooling": any(isinstance(module, _MaxPoolNd) for module in modules),
            "coded": not _straight(getattr(subject.encoder, "code_book", None)) and hasattr(subject.encoder, "code_book"),
            "num_classes": subject.num_classes,
            "blocked": blocked,
            "stuck": stuck,
        }

    def _blocked(self) -> tuple[list[str], list[str]]:
        x, labels = self.subject.inputs(PROTOCOLS["spikes"], self.first(HARNESS_IMAGES), self.subject.generator(0))
        x = x.clone().requires_grad_()
        # In eval mode, as every target has it.
        target = self.subject.target(PROTOCOLS["spikes"], self.subject.generator(0))
        return blocked_modules(
            self.subject.classifier, lambda: target.logits(x).logsumexp(1) - target.logits(x).gather(1, labels[:, None])[:, 0]
        )

    def _why_no_rules(self) -> str:
        """Return why surrogate rules cannot be applied; empty where they can."""
        try:
            spiking_neurons(self.subject.classifier)
        except InputError as error:
            x, _ = self.subject.inputs(PROTOCOLS["spikes"], self.first(1), self.subject.generator(0))
            with torch.enable_grad():
                logits = self.subject.target(PROTOCOLS["spikes"], self.subject.generator(0)).logits(x.clone().requires_grad_())
            own = own_functions(logits)
            return f"{error}; its derivatives are autograd functions of its own: {', '.join(own)}" if own else str(error)
        return ""

    def _idle(self, facts: Facts) -> dict[str, str]:
        """Return why rules are not tried: they refuse this network, or change no gradient of it, of a random one with the same draws."""
        x, labels = self.subject.inputs(PROTOCOLS["spikes"], self.first(HARNESS_IMAGES), self.subject.generator(0))
        target = Metered(self.subject.target(PROTOCOLS["spikes"], self.subject.generator(0)), Meter(labels))

        def gradient() -> Tensor:
            with torch.random.fork_rng([x.device] if x.device.type == "cuda" else []):
                torch.manual_seed(self.subject.seed)
                return input_gradient(target.logits, x, labels, "margin")[0]

        plain, idle = gradient(), {}
        for name, rule in Battery(False, self.budget, self.eps, facts).rules().items():
            try:
                with rule.applied(self.subject.classifier):
                    if torch.equal(gradient(), plain):
                        idle[name] = "it changes no gradient of this network"
            except InputError as error:
                idle[name] = str(error)
        return idle

    def _repeats(self) -> bool:
        evidence = harness(self.subject, PROTOCOLS["spikes"], self.first(HARNESS_IMAGES), {})
        return bool(evidence["deterministic"]) and evidence["gap_repeat"] <= SAME

    def _clean(self) -> list[bool]:
        right: list[bool] = []
        for number, batch in enumerate(self.subject.batches(self.first(len(self.subject.labels)))):
            x, labels = self.subject.inputs(PROTOCOLS["spikes"], batch, self.subject.generator(0, number))
            with torch.random.fork_rng([]):
                torch.manual_seed(self.subject.generator(0, number, 1).initial_seed())
                logits = self.subject.judge(self.subject.target(PROTOCOLS["spikes"], self.subject.generator(0)), x)
            right += (logits.argmax(1) == labels).tolist()
        return right


@dataclass
class _Conduct:
    """One protocol of an audit.

    Args:
        audit: What all protocols share.
        protocol: Which one.
        facts: What the network is.
        clean: By image, whether it is right without an attack.
    """

    audit: Audit
    protocol: Protocol
    facts: Facts
    clean: list[bool]
    attacks: list[AttackEvidence] = field(default_factory=list, init=False)
    records: list[Record] = field(default_factory=list, init=False)

    @property
    def subject(self) -> Subject:
        """What is audited."""
        return self.audit.subject

    @cached_property
    def battery(self) -> Battery:
        """The attacks."""
        return Battery(self.protocol.space == "image", self.audit.budget, self.audit.eps, self.facts)

    def evidence(self) -> ProtocolEvidence:
        """Run the protocol."""
        right = [place for place, hit in enumerate(self.clean) if hit]
        quoted_records = self._attack(Job("quoted attack", "claim", self.audit.claim or quoted(self.audit.eps)), self._everybody(right))
        if self.protocol.batch_norm == "eval":
            self._attack_all(right)
        measured = self._harness()
        found = self._diagnostics(right) | rounded(quoted_records, len(self.clean))
        return ProtocolEvidence(
            space=self.protocol.space, batch_norm=self.protocol.batch_norm, what=self.protocol.what, attacks=self.attacks,
            harness=Harness(**measured | legality(self.records)), diagnostics=Diagnostics(**found),
        )  # fmt: skip

    def _everybody(self, right: list[int]) -> list[int]:
        # With BatchNorm in batch mode the others in a batch take part in its statistics.
        return right if self.protocol.batch_norm == "eval" else self.audit.first(len(self.clean))

    # Attacks -----------------------------------------------------------------------------------------------------------------

    def _attack_all(self, right: list[int]) -> None:
        """Run the native battery, then what is compared with it, on the survivors."""
        battery, left = self.battery, right
        flat: set[int] = set()
        for job in battery.cross_entropy():
            records = self._attack(job, left)
            left = _left(left, records)
            flat |= _without_gradient(records)
        flat &= set(left)
        for job in battery.scale_free():
            left = _left(left, self._attack(job, [place for place in left if place not in flat]))
        if flat:
            reference, arm = battery.loss_arm()
            self._attack(reference, sorted(flat), planned=False)
            left = _left(left, self._attack(arm, sorted(flat), planned=False))
        survivors = left
        for job in battery.references():
            left = _left(left, self._attack(job, left))
        left = survivors
        for job in battery.arms():
            left = _left(left, self._attack(job, left))
        for job in self._transfers():
            left = _left(left, self._attack(job, left, planned=False))
        if not self.facts.spiking:
            self._does_not_apply("surrogates", self.facts.why_no_rules)
        for name, why in self.facts.idle.items():
            self._does_not_apply(name, why)
        self._unbounded(survivors or right)
        self._radii(right, {place for place in right if self._survives(place)})

    def _does_not_apply(self, what: str, why: str) -> None:
        self.attacks.append(
            AttackEvidence(
                name=what, role="arm", family="rules", stream=MAIN, status="does not apply", why=why, fooled=[None] * len(self.clean)
            )
        )

    def _survives(self, place: int) -> bool:
        return not any(one.fooled[place] or one.seen[place] for one in self.attacks if one.seen and one.eps <= self.audit.eps)

    def _transfers(self) -> list[Job]:
        """Attacks crafted on the same weights without spikes, and on a second network."""
        sources = {"another network": self.audit.source} if self.audit.source is not None else {}
        network = getattr(self.subject.classifier, "network", None)
        if self.facts.spiking and isinstance(network, nn.Module):
            try:
                sources["the rate twin"] = MeanOverTime(rate_twin(network))
            except InputError as error:
                self.audit.missing("transfer from the rate twin", str(error))
        generator, host = self.subject.generator(10), self.battery.host()
        return [
            Job(
                f"transfer from {name}", "arm",
                Transfer(replace(self.subject, classifier=source.eval()).target(self.protocol, generator), host, eps=self.audit.eps),
                "transfer", MAIN,
            )
            for name, source in sources.items()
        ]  # fmt: skip

    def _unbounded(self, places: list[int]) -> None:
        """At eps = 1: the native attack against swapping the image."""
        places = places[:UNBOUNDED_IMAGES]
        others, _ = self.subject.inputs(self.protocol, _spread(self.subject.labels, self.clean)[:SWAPS], self.subject.generator(29))
        self._attack(
            Job("native attack, any image allowed", "reference", self.battery.host(eps=UNBOUNDED), stream=ANYWHERE), places, planned=False
        )
        self._attack(Job("another image, any allowed", "arm", Swap(others, eps=UNBOUNDED), "unbounded", ANYWHERE), places, planned=False)

    def _radii(self, right: list[int], survivors: set[int]) -> None:
        """V12: the native attack in other balls; an image is not attacked again above the radius that broke it."""
        left = right
        for radius in sorted(self.audit.budget.radii):
            eps = radius / 255
            if eps > self.audit.eps:
                left = [place for place in left if place in survivors]
            left = _left(left, self._attack(Job(f"eps {radius}/255", "radius", self.battery.host(eps=eps)), left))

    def _attack(self, job: Job, places: list[int], planned: bool = True) -> list[Record]:
        """Attack the images at these places, keep the evidence, and return the records."""
        audit, key = self.audit, (zlib.crc32(self.protocol.name.encode()), zlib.crc32(f"{job.role} {job.name}".encode()))
        name, units = f"{self.protocol.name}: {job.role}: {job.name}", cost(job.attack)
        # The plan counted on every right image.
        audit.replan(units * (len(places) - planned * sum(self.clean)))
        if self.protocol.batch_norm == "batch":
            # BatchNorm's statistics drift from batch to batch: it is all or nothing.
            records = audit.once(name, units * len(places), lambda: self._drifting(job.attack, places, key))
        else:
            records = [
                audit.once(
                    f"{name} [{index}]", units * len(batch),
                    partial(attack_batch, self.subject, self.protocol, job.attack, batch, (*key, index)),
                )
                for index, batch in enumerate(self.subject.batches(places))
            ]  # fmt: skip
        self.attacks.append(outcome_of(job, records, len(self.clean), self.facts.random))
        self.records += [record for record in records if record["status"] == "done"]
        return list(records)

    def _drifting(self, attack: Attack, places: list[int], key: tuple[int, ...]) -> list[Record]:
        target = self.subject.target(self.protocol, self.subject.generator(*key))
        batches = self.subject.batches(places)
        return [attack_batch(self.subject, self.protocol, attack, batch, (*key, index), target) for index, batch in enumerate(batches)]

    # Diagnostics -------------------------------------------------------------------------------------------------------------

    def _measure(self, name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return a measurement; one that breaks says nothing, and the audit goes on."""

        def safely() -> dict[str, Any]:
            try:
                return compute()
            except Exception as error:  # noqa: BLE001  # whatever breaks in one measurement is reported
                return {"failed": str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"}

        result: dict[str, Any] = self.audit.once(f"{self.protocol.name}: {name}", 0.0, safely)
        if "failed" in result:
            self.audit.missing(f"{self.protocol.name}: {name}", result["failed"])
        return {key: value for key, value in result.items() if key != "failed"}

    def _harness(self) -> dict[str, Any]:
        few, rules = self.audit.first(HARNESS_IMAGES), self.battery.rules()
        return self._measure("harness", lambda: harness(self.subject, self.protocol, few, rules))

    def _diagnostics(self, right: list[int]) -> dict[str, Any]:
        subject, budget, eps, few = self.subject, self.audit.budget, self.audit.eps, right[: self.audit.budget.probes]
        found = self._measure("pixel noise", lambda: diagnostics.pixel_noise(subject, self.audit.first(len(self.clean)), eps))
        if self.protocol.batch_norm == "batch" or not few:
            return found
        found |= self._measure("zero entries", lambda: diagnostics.zero_entries(subject, self.protocol, few))
        found |= self._measure("loss under noise", lambda: diagnostics.loss_under_noise(subject, self.protocol, few, budget.noise, eps))
        found |= self._measure("landscape", lambda: diagnostics.landscape(subject, self.protocol, few, eps))
        found |= self._measure("fidelity", lambda: diagnostics.fidelity(subject, self.protocol, few, eps))
        found["vanishing"] = {}
        if self.facts.spiking:
            found |= self._measure("surrogate cosine", lambda: diagnostics.surrogate_cosine(subject, self.protocol, few))
            found |= self._measure("vanishing", lambda: diagnostics.vanishing(subject, self.protocol, few))
        if self.audit.training is not None:
            attacks = [self.battery.host("ce"), self.battery.host()]
            found |= self._measure("control", lambda: control(subject, self.protocol, attacks, self._reference))
        found |= self._measure("planted examples", lambda: self._planted(right))
        return found | {name: kind(**found[name]) for name, kind in (("control", Control), ("planted", Planted)) if name in found}

    def _planted(self, right: list[int]) -> dict[str, Any]:
        """V15: the share of planted examples that the attack finds, and that noise finds."""
        if not self.audit.budget.planted:
            raise InputError("this budget plants none: a thousand forward passes for each image")
        noise = Noise(eps=self.audit.eps, draws=self.audit.budget.noise, kind="levels" if self.protocol.space == "image" else "uniform")
        attacks = {"found": self.battery.host(longer=2 if self.battery.coded else 1), "found_by_noise": noise}
        units = POINTS + sum(map(cost, attacks.values()))
        done: list[dict[str, bool]] = []
        for place in right:
            self.audit.replan(units)
            plant = partial(planted, self.subject, self.protocol, place, attacks)
            result = self.audit.once(f"{self.protocol.name}: planted [{place}]", units, plant)
            done += [result] if result else []
            if len(done) == self.audit.budget.planted:
                break
        if not done:
            raise InputError("no read-out of the features tells a corner of the ball from its inside")
        return {"planted": {"samples": len(done), **{name: sum(result[name] for result in done) / len(done) for name in attacks}}}

    @cached_property
    def _reference(self) -> nn.Module:
        assert self.audit.training is not None
        return trained_reference(self.subject, *self.audit.training)


def planned(protocols: Sequence[str], budget: Budget, eps: float, facts: Facts) -> float:
    """Return the units that an image costs if no attack breaks it: what an audit costs at most."""
    total = 0.0
    for name in protocols:
        battery = Battery(PROTOCOLS[name].space == "image", budget, eps, facts)
        total += cost(quoted(eps))
        if PROTOCOLS[name].batch_norm == "eval":
            jobs = [*battery.cross_entropy(), *battery.scale_free(), *battery.references(), *battery.arms()]
            total += sum(cost(job.attack) for job in jobs) + len(budget.radii) * cost(battery.host())
    return total


def _left(places: list[int], records: list[Record]) -> list[int]:
    """Return which of the places no record has broken."""
    broken = {
        place
        for record in records
        if record["status"] == "done"
        for place, hit in zip(record["places"], record["fooled"], strict=True)
        if hit
    }
    return [place for place in places if place not in broken]


def _without_gradient(records: list[Record]) -> set[int]:
    """Return the places whose gradient was exactly 0 at the start."""
    done = [record for record in records if record["status"] == "done"]
    return {place for record in done for place, zero in zip(record["places"], record["zero_start"], strict=True) if zero}


def _spread(labels: Tensor, clean: list[bool]) -> list[int]:
    """Return the places of right images, a class at a time."""
    by_class: dict[int, list[int]] = {}
    for place, hit in enumerate(clean):
        if hit:
            by_class.setdefault(int(labels[place]), []).append(place)
    return [place for row in range(2) for places in by_class.values() for place in places[row : row + 1]] or [0]


def _straight(code_book: Tensor | None) -> bool:
    """Return whether each step's code is a straight line in the grey level, so that a box average has its exact derivative."""
    if code_book is None:
        return True
    steps = code_book.diff(dim=0)
    return bool(torch.allclose(steps, steps[:1].expand_as(steps), atol=1e-6))

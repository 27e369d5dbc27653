"""The attacks of one protocol, in their order, each on the images that are left."""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

from torch import nn

from snn_sparsity.attacks import Swap, Transfer
from snn_sparsity.attacks.base import Attack
from snn_sparsity.audit.collect.attacking import BatchResult, attack_batch
from snn_sparsity.audit.collect.battery import ANYWHERE, MAIN, UNBOUNDED, Battery, Job, cost
from snn_sparsity.audit.collect.outcomes import outcome_of
from snn_sparsity.audit.collect.threat_models import ThreatModel
from snn_sparsity.audit.collect.work import Work
from snn_sparsity.audit.evidence import AttackEvidence
from snn_sparsity.networks.rate_twin import MeanOverTime, rate_twin
from snn_sparsity.validation import InputError

SWAPS = 8
UNBOUNDED_IMAGES = 64


@dataclass
class AttackSequence:
    """The attacks of one protocol.

    Args:
        work: What all protocols share.
        protocol: Which one.

    Attributes:
        evidence: What became of each attack so far.
        records: Of each batch that was attacked.
        quoted: Those of the quoted attack.
    """

    work: Work
    protocol: ThreatModel
    evidence: list[AttackEvidence] = field(default_factory=list, init=False)
    records: list[BatchResult] = field(default_factory=list, init=False)
    quoted: list[BatchResult] = field(default_factory=list, init=False)

    @cached_property
    def battery(self) -> Battery:
        """Which attacks there are."""
        return self.protocol.battery(self.work.budget, self.work.eps, self.work.facts)

    def run(self) -> None:
        """Run the quoted attack, the native battery, and on its survivors what is compared with it."""
        work = self.work
        # Where BatchNorm takes the batch's statistics, the others in a batch take part in them.
        everybody = list(range(len(work.clean)))
        claim = self.protocol.quoted(work.claim, work.eps)
        self.quoted = self._attack(Job("quoted attack", "claim", claim), everybody if self.protocol.drifts else work.right)
        if self.protocol.drifts:
            return
        for jobs in self.battery.averaging():
            # V28: on a random network, one draw a step against the mean of several, on all images.
            self._one_after_the_other(jobs, work.right, planned=False)
        survivors = self._native()
        self._one_after_the_other(self.battery.references(), survivors)
        left = self._one_after_the_other(self.battery.arms(), survivors)
        self._one_after_the_other(self._transfers(), left, planned=False)
        refused = work.facts.idle if work.facts.spiking else {"surrogates": work.facts.why_no_rules} | dict(work.facts.idle)
        nobody: list[bool | None] = [None] * len(work.clean)
        self.evidence += [
            AttackEvidence(name=what, role="arm", family="rules", stream=MAIN, status="does not apply", why=why, fooled=nobody)
            for what, why in refused.items()
        ]
        if self.protocol.perturbation == "linf":
            self._unbounded(survivors or work.right)
            self._radii()

    def _native(self) -> list[int]:
        """Run the attacks with the network's own gradient, and return who is left.

        Images whose cross-entropy has no gradient are kept out of the losses that no scale changes: there these are an arm.
        """
        left, flat = self.work.right, set[int]()
        for job in self.battery.cross_entropy():
            records = self._attack(job, left)
            left = _left(left, records)
            for record in records:
                if record["status"] == "done":
                    flat |= {place for place, zero in zip(record["places"], record["zero_start"], strict=True) if zero}
        flat &= set(left)
        for job in self.battery.scale_free():
            left = _left(left, self._attack(job, [place for place in left if place not in flat]))
        if flat:
            reference, arm = self.battery.loss_arm()
            self._attack(reference, sorted(flat), planned=False)
            left = _left(left, self._attack(arm, sorted(flat), planned=False))
        return left

    def _one_after_the_other(self, jobs: Iterable[Job], places: list[int], planned: bool = True) -> list[int]:
        """Attack with each job what those before it have left, and return what is left at the end."""
        for job in jobs:
            places = _left(places, self._attack(job, places, planned))
        return places

    def _transfers(self) -> list[Job]:
        """Attacks crafted on the same weights without spikes, and on a second network."""
        work = self.work
        sources = {"another network": work.source} if work.source is not None else {}
        network = getattr(work.subject.classifier, "network", None)
        if work.facts.spiking and isinstance(network, nn.Module):
            try:
                sources["the rate twin"] = MeanOverTime(rate_twin(network))
            except InputError as error:
                work.ledger.missing("transfer from the rate twin", str(error))
        generator, host = work.subject.generator(10), self.battery.host()
        targets = {
            name: self.protocol.target(replace(work.subject, classifier=source.eval()), generator) for name, source in sources.items()
        }
        return [
            Job(f"transfer from {name}", "arm", Transfer(target, host, eps=self.battery.eps), "transfer", MAIN)
            for name, target in targets.items()
        ]

    def _unbounded(self, places: list[int]) -> None:
        """V29: at eps = 1, the native attack against swapping the image."""
        subject = self.work.subject
        # Right images, a class at a time.
        by_class: dict[int, list[int]] = {}
        for place in self.work.right:
            by_class.setdefault(int(subject.labels[place]), []).append(place)
        spread = [place for row in range(2) for alike in by_class.values() for place in alike[row : row + 1]] or [0]
        others, _ = self.protocol.inputs(subject, spread[:SWAPS])
        native = Job("native attack, any image allowed", "reference", self.battery.host(eps=UNBOUNDED), stream=ANYWHERE)
        swap = Job("another image, any allowed", "arm", Swap(others, eps=UNBOUNDED), "unbounded", ANYWHERE)
        for job in (native, swap):
            self._attack(job, places[:UNBOUNDED_IMAGES], planned=False)

    def _radii(self) -> None:
        """V12: the native attack in other balls; an image is not attacked again above the radius that broke it."""
        work = self.work
        inside = [one for one in self.evidence if one.seen and one.eps <= work.eps]
        survivors = {place for place in work.right if not any(one.fooled[place] or one.seen[place] for one in inside)}
        left = work.right
        for eps in work.radii:
            if eps > work.eps:
                left = [place for place in left if place in survivors]
            left = _left(left, self._attack(Job(f"eps {round(255 * eps)}/255", "radius", self.battery.host(eps=eps)), left))

    def _attack(self, job: Job, places: list[int], planned: bool = True) -> list[BatchResult]:
        """Attack the images at these places, keep the evidence, and return the records."""
        work, protocol = self.work, self.protocol
        name, units = f"{protocol.name}: {job.role}: {job.name}", cost(job.attack)
        key = (zlib.crc32(protocol.name.encode()), zlib.crc32(f"{job.role} {job.name}".encode()))
        # The plan counted on every right image.
        work.ledger.plan(units * (len(places) - planned * len(work.right)))
        if protocol.drifts:
            # It is all or nothing: a batch depends on those before it.
            records: list[BatchResult] = work.ledger.once(name, units * len(places), lambda: self._drifting(job.attack, places, key))
        else:
            records = [
                work.ledger.once(
                    f"{name} [{index}]", units * len(batch), partial(attack_batch, work.subject, protocol, job.attack, batch, (*key, index))
                )
                for index, batch in enumerate(work.subject.batches(places))
            ]
        self.evidence.append(outcome_of(job, records, len(work.clean), work.facts.random))
        self.records += [record for record in records if record["status"] == "done"]
        return records

    def _drifting(self, attack: Attack, places: list[int], key: tuple[int, ...]) -> list[BatchResult]:
        subject = self.work.subject
        target = self.protocol.target(subject, subject.generator(*key))
        return [
            attack_batch(subject, self.protocol, attack, batch, (*key, index), target)
            for index, batch in enumerate(subject.batches(places))
        ]


def _left(places: list[int], records: list[BatchResult]) -> list[int]:
    """Return which of the places no record has broken."""
    broken = {
        place
        for record in records
        if record["status"] == "done"
        for place, hit in zip(record["places"], record["fooled"], strict=True)
        if hit
    }
    return [place for place in places if place not in broken]

"""The audit itself: protocol by protocol, attack by attack, batch by batch, each result journaled as soon as it is there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from snn_sparsity.attacks.base import Attack, correct
from snn_sparsity.audit.collect.battery import Battery, Budget, Facts, quoted
from snn_sparsity.audit.collect.facts import facts_of, idle_rules
from snn_sparsity.audit.collect.foresight import Foresight, foresee, units_of
from snn_sparsity.audit.collect.journal import Journal
from snn_sparsity.audit.collect.ledger import Ledger, Tell
from snn_sparsity.audit.collect.measurements import HARNESS_IMAGES, Measurements
from snn_sparsity.audit.collect.sequence import AttackSequence
from snn_sparsity.audit.collect.subject import Subject
from snn_sparsity.audit.collect.threat_models import PIXELS, SPIKES, ThreatModel, threat_models
from snn_sparsity.audit.collect.work import Work
from snn_sparsity.audit.evidence import Evidence, ProtocolEvidence
from snn_sparsity.validation import InputError


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
        flips: Most spikes of an image that may be flipped; None is 0.25 % of the code's entries.
        tell: Told of progress.
        foretold: Told, before the first attack, how long all are going to take; None costs no time to find out.
    """

    subject: Subject
    protocols: Sequence[str]
    budget: Budget
    eps: float
    journal: Journal
    training: tuple[Tensor, Tensor] | None = None
    source: nn.Module | None = None
    claim: Attack | None = None
    flips: int | None = None
    tell: Tell = lambda name, done, total: None
    foretold: Callable[[Foresight], None] | None = None

    def run(self) -> Evidence:
        """Run everything that the journal does not hold yet."""
        ledger, wanted = Ledger(self.journal, self.tell), threat_models(self.protocols, self.subject, self.flips)
        refused = {protocol.name: why for protocol in wanted if (why := protocol.refuses(self.subject))}
        chosen = [protocol for protocol in wanted if protocol.name not in refused]
        if not chosen:
            raise InputError("; ".join(f"{name}: {why}" for name, why in refused.items()))
        for name, why in refused.items():
            ledger.missing(name, why)
        facts = self._facts(ledger)
        subject, claim = replace(self.subject, random=facts.random), self.claim or quoted(self.eps)
        clean = self.journal.once("clean", lambda: clean_hits(subject))
        work = Work(subject, self.budget, self.eps, claim, facts, clean, ledger, self.training, self.source)
        if self.foretold is not None and work.right:
            self.foretold(foresee(work, chosen))
        ledger.plan(units_of(work, chosen) * len(work.right))
        return Evidence(
            eps=float(self.eps), num_classes=subject.num_classes, labels=subject.labels.tolist(), clean=clean,
            protocols={protocol.name: evidence_of(work, protocol) for protocol in chosen}, not_run=ledger.not_run,
        )  # fmt: skip

    def _facts(self, ledger: Ledger) -> Facts:
        """Find out what the network is, and which rules change nothing of it."""
        subject, few = self.subject, list(range(min(HARNESS_IMAGES, len(self.subject.labels))))
        with subject.drawing(0):
            known = dict(self.journal.once("facts", lambda: facts_of(subject, few)))
        for path in known.pop("stuck"):
            ledger.missing(f"straight through {path}", "it blocks the gradient, and its input and output differ in shape")
        facts = Facts(**known | {"blocked": tuple(known["blocked"])})
        rules = Battery(False, self.budget, self.eps, facts).rules()
        return facts._replace(idle=self.journal.once("idle rules", lambda: idle_rules(subject, few, rules)))


def evidence_of(work: Work, protocol: ThreatModel) -> ProtocolEvidence:
    """Run one protocol: its attacks, then its measurements."""
    attacks = AttackSequence(work, protocol)
    attacks.run()
    measured = Measurements(attacks)
    return ProtocolEvidence(
        space=protocol.space, batch_norm=protocol.batch_norm, perturbation=protocol.perturbation, what=protocol.what,
        attacks=attacks.evidence, harness=measured.harness(), diagnostics=measured.diagnostics(),
    )  # fmt: skip


def clean_hits(subject: Subject) -> list[bool]:
    """Return by image whether it is right without an attack."""
    right: list[bool] = []
    model: ThreatModel = PIXELS if subject.encoder.stochastic else SPIKES
    for batch in subject.batches(list(range(len(subject.labels)))):
        x, labels = model.inputs(subject, batch)
        right += correct(subject.judge(model.target(subject, subject.generator(0)), x, batch), labels).tolist()
    return right

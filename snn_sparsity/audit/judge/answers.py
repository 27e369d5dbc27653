"""The two answers: how much survives, and whether the quoted number can be believed."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from snn_sparsity.audit.evidence import Evidence
from snn_sparsity.audit.judge.case import Case
from snn_sparsity.audit.judge.checks import CHECKS
from snn_sparsity.audit.judge.checks.base import Check, Finding, level, won
from snn_sparsity.audit.judge.comparisons import Comparison
from snn_sparsity.audit.judge.masks import Mask
from snn_sparsity.audit.judge.statistics import Proportion
from snn_sparsity.audit.judge.thresholds import CALIBRATED, Thresholds
from snn_sparsity.units import Levels

Belief = Literal["NOT VALID", "MASKED", "WEAK ATTACK", "NO SIGN OF MASKING", "TOO FEW IMAGES"]


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A check and what it found.

    Attributes:
        check: What was asked.
        finding: What was found.
    """

    check: Check
    finding: Finding


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a reader should take away from one protocol.

    Attributes:
        do: What to do, in one sentence.
        under_attack: How much survives: ``BROKEN``, or "at most x % (k of n, interval)".
        belief: Whether the quoted number can be believed.
        because: Why that, and by which test.
        clean: Right without an attack.
        quoted: Right under the quoted attack; None if it did not run.
        native: Right under the network's own gradient; None if no such attack ran.
        worst: Right under everything inside the ball; None if nothing ran.
        broken: Whether next to nothing survives, beyond doubt.
        comparisons: Each rule and black box against the native attack.
        checks: All of them.
        beside: What did not run or did not pass and decides nothing.
    """

    do: str
    under_attack: str
    belief: Belief
    because: str
    clean: Proportion
    quoted: Proportion | None
    native: Proportion | None
    worst: Proportion | None
    broken: bool
    comparisons: list[Comparison]
    checks: list[Checked]
    beside: list[str]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        shares = {name: share._asdict() for name in ("clean", "quoted", "native", "worst") if (share := getattr(self, name)) is not None}
        return {
            "do": self.do,
            "under_attack": self.under_attack,
            "belief": self.belief,
            "because": self.because,
            "accuracy": shares,
            "comparisons": [asdict(one) | {"gain": one.gain, "interval": list(one.interval)} for one in self.comparisons],
            "checks": [
                {"id": one.check.id, "question": one.check.question, "status": one.finding.status, "found": one.finding.found}
                for one in self.checks
            ],
            "beside": self.beside,
        }


def judge(evidence: Evidence, thresholds: Thresholds = CALIBRATED) -> dict[str, Answers]:
    """Judge each protocol of an audit: a pure function of its evidence, nothing is measured here.

    Args:
        evidence: Of an audit, or of some of its images (:meth:`Evidence.of`).
        thresholds: What turns evidence into a word.

    Example:
        >>> from snn_sparsity.audit.evidence import AttackEvidence, ProtocolEvidence
        >>> attack = AttackEvidence(name="pgd", role="native", fooled=[True] * 300)
        >>> protocol = ProtocolEvidence(space="image", attacks=[attack])
        >>> evidence = Evidence(eps=8 / 255, num_classes=10, labels=[0] * 300, clean=[True] * 300, protocols={"image": protocol})
        >>> judge(evidence)["image"].under_attack
        'BROKEN: 0.0 % (0 of 300, 95 % interval 0.0 to 1.3 %)'
    """
    return {name: _judge(Case(evidence, protocol, thresholds)) for name, protocol in evidence.protocols.items()}


def _judge(case: Case) -> Answers:
    checked = [Checked(check=check, finding=check.look(case)) for check in CHECKS]
    worst = _share(case, case.worst)
    broken = worst is not None and worst.high <= case.thresholds.broken
    belief, because = _belief(case, checked)
    warned = [f"{one.check.id} warn: {one.check.question} {one.finding.found}" for one in checked if one.finding.status == "warn"]
    not_run = ", ".join(one.check.id for one in checked if one.finding.status == "not run")
    return Answers(
        do=_what_to_do(case, belief, because),
        under_attack="not measured" if worst is None else f"{'BROKEN:' if broken else 'at most'} {counted(worst)}",
        belief=belief,
        because=because,
        clean=case.share(case.clean),
        quoted=_share(case, case.quoted),
        native=_share(case, case.native),
        worst=worst,
        broken=broken,
        comparisons=case.comparisons,
        checks=checked,
        beside=[*warned, *([f"checks that did not run: {not_run}"] if not_run else []), *notes(case)],
    )


def _share(case: Case, mask: Mask | None) -> Proportion | None:
    return None if mask is None else case.share(mask)


def counted(share: Proportion) -> str:
    """Return a share with its count and interval.

    Example:
        >>> from snn_sparsity.audit.judge.statistics import wilson
        >>> counted(wilson(59, 256))
        '23.0 % (59 of 256, 95 % interval 18.3 to 28.6 %)'
    """
    return (
        f"{100 * share.value:.1f} % ({round(share.value * share.samples)} of {share.samples}, "
        f"95 % interval {100 * share.low:.1f} to {100 * share.high:.1f} %)"
    )


def _belief(case: Case, checked: list[Checked]) -> tuple[Belief, str]:
    """Return the second answer, and the test behind it."""
    invalid = _failed(checked, "valid")
    if invalid:
        found = "; ".join(f"{one.check.id}: {one.finding.found}" for one in invalid)
        return "NOT VALID", found if case.protocol.batch_norm == "eval" else f"{_about_batch_statistics(case)} ({found})"
    few = "" if case.samples >= case.thresholds.few else f"; {case.samples} images are enough for that, the level is p < {level(case)}"
    if _failed(checked, "masked"):
        best = won(case)[0]
        clear = f"exact one-sided McNemar p = {best.p:.2g}, {best.adjusted:.2g} after Holm over {len(case.comparisons)} comparisons"
        return "MASKED", (
            f"{best.name} breaks {best.gained} of {best.tried} images that the native attack does not at the same cost, "
            f"and {best.lost} the other way round ({clear}){few}"
        )
    weak = _failed(checked, "weak")
    if weak:
        return "WEAK ATTACK", f"{weak[0].finding.found}{few}"
    return _not_accused(case)


def _about_batch_statistics(case: Case) -> str:
    """Return in two sentences why the protocol of the paper's published code measures something else."""
    sentence = (
        "The network that is attacked, whose BatchNorm takes the batch's statistics, is not the one that is judged, with the stored ones."
    )
    right = case.diagnostics.rounded
    if right is None:
        return sentence
    shares = f"{100 * right:.1f} % right again, of {100 * case.clean.mean():.1f} % without an attack"
    return f"{sentence} Rounding the attacked spikes to 0 and 1 makes {shares}: no image could have caused what rounding undoes"


def _not_accused(case: Case) -> tuple[Belief, str]:
    if case.native is None:
        return "TOO FEW IMAGES", "no attack with the network's own gradient ran"
    settled, few = int(case.settled.sum()), case.thresholds.few
    if settled >= few and case.comparisons:
        clearest = min(one.adjusted for one in case.comparisons)
        return "NO SIGN OF MASKING", f"{len(case.comparisons)} comparisons at equal cost, the clearest has p = {clearest:.2g} after Holm"
    if case.share(case.native).high <= case.thresholds.broken:
        return (
            "NO SIGN OF MASKING",
            f"the network's own gradient already breaks it: {counted(case.share(case.native))} by Wilson's interval",
        )
    attacked = "" if settled == case.samples else f", of which {case.samples - settled} no attack was compared on"
    return "TOO FEW IMAGES", f"{case.samples} images{attacked} cannot tell: {few} can"


def _what_to_do(case: Case, belief: Belief, because: str) -> str:
    worst, quoted = _share(case, case.worst), _share(case, case.quoted)
    if not case.clean.any():
        return f"Quote nothing: the network is right on none of the {case.samples} images without an attack."
    if worst is None:
        return "Quote nothing: no attack ran."
    if belief == "NOT VALID":
        why = because if case.protocol.batch_norm == "eval" else "BatchNorm takes the batch's statistics while the attack is crafted"
        return f"Quote no accuracy under attack of this protocol: the measurement is not valid ({why})."
    if quoted is None or case.same_ball:
        return _sentence(belief, worst, quoted, case.thresholds)
    # What holds in one ball need not hold in the other.
    number, bound = f"{100 * quoted.value:.1f} % at eps {Levels(case.quoted_eps)}", _share(case, case.within(case.quoted_eps))
    if belief in ("MASKED", "WEAK ATTACK") and bound is not None and bound.value < quoted.value:
        return f"Do not quote {number}: at most {_left(bound)} survive there."
    sentence = _sentence(belief, worst, None, case.thresholds)
    return f"At eps {Levels(case.eps)}: {sentence[0].lower()}{sentence[1:]} To judge the quoted {number}, audit that ball."


def _sentence(belief: Belief, worst: Proportion, quoted: Proportion | None, thresholds: Thresholds) -> str:
    if belief in ("MASKED", "WEAK ATTACK"):
        number = f"{100 * quoted.value:.1f} %" if quoted and quoted.value > worst.value else "an accuracy under this attack"
        return f"Do not quote {number}: at most {_left(worst)} survive."
    if belief == "TOO FEW IMAGES":
        return f"Quote nothing yet: audit {thresholds.few} images or more; at most {_left(worst)} survive so far."
    if worst.high <= thresholds.broken:
        return f"Call it broken: {_left(worst)} survive."
    return f"Quote at most {_left(worst)}, as an upper bound: no sign of masking was found."


def _left(share: Proportion) -> str:
    return f"{100 * share.value:.1f} % ({round(share.value * share.samples)} of {share.samples})"


def _failed(checked: list[Checked], kind: str) -> list[Checked]:
    return [one for one in checked if one.check.kind == kind and one.finding.status == "fail"]


def notes(case: Case) -> list[str]:
    """Return what is said beside the checks: of which balls, which attacks did not run, and whether the audit was stopped."""
    balls = f"the quoted attack's eps is {Levels(case.quoted_eps)}, the audited one {Levels(case.eps)}"
    return [
        *([] if case.same_ball else [f"{balls}: V27 compares inside the first, all else is of the second"]),
        *(f"did not run: {one.name}: {one.why}" for one in case.protocol.attacks if one.status in ("failed", "skipped")),
        *([] if case.evidence.complete else ["the audit was stopped before its end"]),
    ]

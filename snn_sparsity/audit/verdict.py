"""The verdict: from the evidence of an audit to what a reader should take away."""

from collections.abc import Mapping
from typing import Any

from snn_sparsity.audit.accuracies import Accuracies
from snn_sparsity.audit.checks_base import percent, points
from snn_sparsity.audit.checks_harness import HARNESS
from snn_sparsity.audit.checks_masking import MASKING
from snn_sparsity.audit.checks_optimisation import OPTIMISATION
from snn_sparsity.audit.checks_symptoms import SYMPTOMS
from snn_sparsity.audit.outcomes import Case, explains_most, number, section

CHECKS = (*HARNESS, *OPTIMISATION, *MASKING, *SYMPTOMS)

SENTENCES = {
    "INVALID": "the measurement itself does not hold: read no accuracy under attack as a property of the network",
    "OBFUSCATED": "the gradients are masked: {standard} under the standard attacks, at most {worst} under all",
    "UNDER-ATTACKED": "the quoted {claim} comes from a weak attack: the standard ones leave {standard}",
    "PARTLY": "some signs of masking: {worst} is an upper bound and may be far from tight",
    "INCONCLUSIVE": "neither masking nor its absence is shown: {worst} is an upper bound",
    "SUPPORTED": "no evidence of masking under this battery; {worst} is an upper bound",
}

NO_ATTACK = {"INCONCLUSIVE": "nothing is shown: no attack ran"}

Statuses = Mapping[str, str]
Reasons = dict[str, str]
"""The words of a verdict, and why each applies."""


def verdict(evidence: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Judge each protocol of an audit by the checks V1 to V26 and the decision rule of docs/audit.md.

    A pure function of JSON: nothing is measured here, and what is missing counts as not run.

    Args:
        evidence: As in ``audit.json`` (docs/audit.md); it is not modified.

    Returns:
        By name of the protocol: ``verdicts``, ``sentence``, ``accuracy``, ``chance``, ``weak_points``, ``masked_points``, ``masked_share``,
        ``p_value``, ``checks``, ``explains_most``, ``remarks``. Numbers that were not measured are None.

    Example:
        >>> attack = {"group": "standard", "status": "done", "fooled": [True, False, False, None]}
        >>> evidence = {"clean": [True, True, True, False], "protocols": {"image": {"space": "image", "attacks": [attack]}}}
        >>> judged = verdict(evidence)["image"]
        >>> judged["accuracy"]["standard"]["value"], judged["verdicts"]
        (0.5, ['INCONCLUSIVE'])
    """
    cases = {name: Case.read(evidence, name) for name in section(evidence, "protocols")}
    return {name: _judge(case, cases.get("image"), evidence.get("complete") is False) for name, case in cases.items()}


def _judge(case: Case, image: Case | None, stopped: bool) -> dict[str, Any]:
    accuracies, missing = Accuracies.of(case), _missing(case, stopped)
    results = [check(case) for check in CHECKS]
    reasons = decide(accuracies, {check["id"]: check["status"] for check, _ in results}, missing)
    remarks = [f"{word}: {why}" for word, why in reasons.items() if why]
    remarks += [remark for _, of_check in results for remark in of_check]
    shares = {name: share for name in accuracies.right if (share := accuracies.share(name))}
    return {
        "verdicts": list(reasons),
        "sentence": "; ".join(_sentence(word, accuracies) for word in reasons),
        "accuracy": {name: share._asdict() for name, share in shares.items()},
        "chance": case.chance,
        "weak_points": accuracies.weak,
        "masked_points": accuracies.masked,
        "masked_share": accuracies.masked_share,
        "p_value": accuracies.p_value,
        "checks": [check for check, _ in results],
        "explains_most": explains_most(case),
        # Two checks may say the same.
        "remarks": list(dict.fromkeys(remarks + missing + _about_samples(case) + _about_pixels(accuracies, case, image))),
    }


def decide(accuracies: Accuracies, statuses: Statuses, missing: list[str]) -> Reasons:
    """Apply the decision rule of docs/audit.md.

    Args:
        accuracies: Of the protocol.
        statuses: Of the checks V1 to V26, by id.
        missing: What the battery lacks besides checks that did not run.

    Returns:
        One or more words, and why.
    """
    invalid = _those(statuses, range(1, 6), "fail")
    if invalid:
        return {"INVALID": f"{', '.join(invalid)} failed"}
    if not accuracies.right["clean"]:
        return {"INCONCLUSIVE": "no sample is classified right without an attack"}
    if "standard" not in accuracies.right:
        return {"INCONCLUSIVE": "no standard attack ran"}
    return _found(accuracies, statuses) or _not_found(statuses, missing)


def _found(accuracies: Accuracies, statuses: Statuses) -> Reasons:
    reasons = {}
    if why := _obfuscated(accuracies, statuses):
        reasons["OBFUSCATED"] = "; ".join(why)
    elif why := _partly(accuracies, statuses):
        reasons["PARTLY"] = "; ".join(why)
    if accuracies.weak is not None and accuracies.weak >= 6:
        reasons["UNDER-ATTACKED"] = f"the standard attacks break {points(accuracies.weak)} more than the one under audit"
    return reasons


def _obfuscated(accuracies: Accuracies, statuses: Statuses) -> list[str]:
    masked, share, p = accuracies.masked or 0.0, accuracies.masked_share or 0.0, accuracies.p_value
    starred = _those(statuses, range(16, 20), "vote")
    why = []
    if (masked >= 5 or share >= 0.3) and p is not None and p < 0.01:
        why.append(f"{points(masked)} masked, {percent(share)} of the standard accuracy (exact McNemar p = {p:.2g})")
    if len(starred) >= 2:
        why.append(f"starred votes {', '.join(starred)}")
    if accuracies.falls_to_chance:
        why.append("the worst case is consistent with chance, the standard accuracy is not")
    return why


def _partly(accuracies: Accuracies, statuses: Statuses) -> list[str]:
    masked, p = accuracies.masked or 0.0, accuracies.p_value
    starred, others = _those(statuses, range(16, 20), "vote"), _those(statuses, range(20, 27), "vote")
    why = []
    # Five points or more get here where they are too few samples to be significant.
    if masked >= 2:
        why.append(f"{points(masked)} masked (exact McNemar p = {p:.2g})")
    if starred:
        why.append(f"starred vote {', '.join(starred)}")
    if len(others) >= 3:
        why.append(f"votes {', '.join(others)}")
    return why


def _not_found(statuses: Statuses, missing: list[str]) -> Reasons:
    unsettled = [f"{id} ({status})" for id, status in statuses.items() if not _settled(id, status)]
    why = [f"not passed: {', '.join(unsettled)}"] if unsettled else []
    if why or missing:
        return {"INCONCLUSIVE": "; ".join([*why, *(["the battery is incomplete"] if missing else [])])}
    votes = _those(statuses, range(20, 27), "vote")
    return {"SUPPORTED": f"votes without a star: {', '.join(votes)}" if votes else ""}


def _settled(id: str, status: str) -> bool:
    # A V1 that EOT cured is a warning; any other warning leaves the question open.
    return status in ("pass", "vote") or (id, status) == ("V1", "warn")


def _those(statuses: Statuses, numbers: range, status: str) -> list[str]:
    return [f"V{k}" for k in numbers if statuses[f"V{k}"] == status]


def _sentence(word: str, accuracies: Accuracies) -> str:
    if "worst" not in accuracies.right:
        return NO_ATTACK.get(word, SENTENCES[word])
    return SENTENCES[word].format(**{name: percent(right / max(accuracies.samples, 1)) for name, right in accuracies.right.items()})


def _missing(case: Case, stopped: bool) -> list[str]:
    missing = [f"did not run: {one.get('name')} ({one.get('status')}): {one.get('why')}" for one in case.not_done()]
    classes = number(case.settings, "num_classes")
    if classes is not None and classes < 4:
        missing.append(f"{classes:.0f} classes: no {'targeted ' if classes == 3 else ''}DLR loss")
    if not (case.in_spikes or case.done("codebook") or case.excused("codebook")):
        missing.append("did not run: code-book attacks, the strongest on coded pixels")
    return [*missing, "the audit was stopped before its end"] if stopped else missing


def _about_samples(case: Case) -> list[str]:
    if case.samples >= 1000:
        return []
    return [f"counted on {case.samples} samples: one is {points(case.points(1))}" if case.samples else "there are no samples"]


def _about_pixels(accuracies: Accuracies, case: Case, image: Case | None) -> list[str]:
    here, there = accuracies.share("worst"), Accuracies.of(image).share("worst") if image else None
    if not (case.in_spikes and here and there):
        return []
    return [f"the same eps in pixels leaves at most {percent(there.value)}, in spikes {percent(here.value)}"]

"""What the pages of an audit say, as plain text: rows of tables and sentences, in the words of ``audit.json`` (docs/audit.md)."""

import string
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from snn_sparsity.audit.statistics import Share, wilson

Audit = Mapping[str, Any]

LEVELS = {"clean": "no attack", "claim": "attack under audit", "standard": "standard attacks", "worst": "all attacks"}
SAME = ("budget", "samples", "seed", "eps", "split", "num_classes")
"""Settings that must be equal for accuracies to be compared; the samples themselves are compared by their labels."""


class Judged(NamedTuple):
    """One protocol of one audit.

    Attributes:
        mark: A letter for the audit, empty where there is but one.
        name: The protocol's name.
        audit: All of the audit.
        protocol: Its evidence.
        verdict: Its verdict.
    """

    mark: str
    name: str
    audit: Audit
    protocol: Mapping[str, Any]
    verdict: Mapping[str, Any]

    @property
    def label(self) -> str:
        """Who is meant, in front of a verdict."""
        return f"{self.mark}, {self.name}" if self.mark else self.name

    @property
    def description(self) -> str:
        """The protocol as the reader must know it."""
        space = "pixels" if self.protocol["space"] == "image" else "encoded spikes"
        return f"{self.name}: {space}, BatchNorm {self.protocol['batch_norm']}"

    @property
    def words(self) -> str:
        """The verdict in one line."""
        return " and ".join(self.verdict["verdicts"])


def marks(audits: Sequence[Audit]) -> list[str]:
    """Return a letter for each audit, or nothing for one that is alone."""
    return [""] if len(audits) == 1 else [string.ascii_uppercase[place % 26] + "'" * (place // 26) for place in range(len(audits))]


def judged(audits: Sequence[Audit]) -> dict[str, list[Judged]]:
    """Return the audits by protocol; what was done to pixels comes first, as the headline."""
    found: dict[str, list[Judged]] = {}
    for mark, audit in zip(marks(audits), audits, strict=True):
        for name, protocol in audit["protocols"].items():
            found.setdefault(name, []).append(Judged(mark, name, audit, protocol, audit["verdicts"][name]))
    return dict(sorted(found.items(), key=lambda item: item[1][0].protocol["space"] != "image"))


def cautions(audits: Sequence[Audit]) -> list[tuple[str, str, str]]:
    """Return what must be known before any number is read: who is meant, what is wrong, and what that means."""
    found = [
        (f"audit {mark}".strip(), "INCOMPLETE", "It was stopped before all attacks and checks had run; --resume goes on.")
        for mark, audit in zip(marks(audits), audits, strict=True)
        if not audit["complete"]
    ]
    first = audits[0]
    names = [name for name in SAME if any(audit["settings"].get(name) != first["settings"].get(name) for audit in audits)]
    names += ["labels of the samples"] if any(audit["labels"] != first["labels"] for audit in audits) else []
    return found + ([("all audits", "NOT LIKE FOR LIKE", f"The audits differ in {', '.join(names)}.")] if names else [])


ACCURACIES = ["audit", "protocol", *LEVELS.values(), "chance", "samples"]


def accuracy_rows(cases: Sequence[Judged]) -> Iterator[list[str]]:
    """Yield a row of ACCURACIES for each, with 95 % intervals."""
    for case in cases:
        shares = {level: Share(**accuracy) for level, accuracy in case.verdict["accuracy"].items()}
        measured = [with_interval(shares[level]) if level in shares else "-" for level in LEVELS]
        chance = case.verdict["chance"]
        yield [case.mark, case.name, *measured, "-" if chance is None else percent(chance), str(len(case.audit["clean"]))]


ATTACKS = ["group", "attack", "status", "attacked", "broke", "seconds", "accuracy alone", "passes / image", "no gradient", "settings"]


def attack_rows(case: Judged) -> Iterator[list[str]]:
    """Yield a row of ATTACKS for each attack, in the order in which they ran."""
    for outcome in case.protocol["attacks"]:
        share = alone(outcome, case.audit["clean"])
        yield [
            outcome["group"],
            outcome["name"],
            outcome["status"],
            str(tried(outcome)),
            str(broken(outcome)),
            _decimal(outcome.get("seconds")),
            with_interval(share) if share else "-",
            _passes(outcome),
            f"{outcome.get('zero_gradient_start', '-')}, {outcome.get('zero_gradient', '-')}",
            "; ".join(text for text in (outcome.get("why"), outcome.get("attack")) if text) or "-",
        ]


def tried(outcome: Mapping[str, Any]) -> int:
    """Return how many samples were attacked."""
    return sum(fooled is not None for fooled in outcome.get("fooled") or [])


def broken(outcome: Mapping[str, Any]) -> int:
    """Return how many samples were fooled."""
    return sum(fooled is True for fooled in outcome.get("fooled") or [])


def alone(outcome: Mapping[str, Any], clean: Sequence[bool]) -> Share | None:
    """Return the accuracy under one attack; None if it left out samples that are right without an attack, or did not finish.

    Args:
        outcome: Of the attack.
        clean: Who is right without an attack; all others count as broken.

    Example:
        >>> alone({"status": "done", "fooled": [True, False, None]}, [True, True, False])[0].__round__(2)
        0.33
        >>> alone({"status": "done", "fooled": [True, None, None]}, [True, True, False]) is None
        True
    """
    fooled = [answer for answer, right in zip(outcome.get("fooled") or [], clean, strict=False) if right]
    if outcome["status"] != "done" or len(fooled) != sum(clean) or None in fooled:
        return None
    return wilson(fooled.count(False), len(clean))


def check_header(cases: Sequence[Judged]) -> list[str]:
    """Return the header of a protocol's table of checks: status and finding of each audit."""
    found = [f"{case.mark} {column}".strip() for case in cases for column in ("status", "found")]
    return ["check", "what it asks", *found, "wanted", "remedy"]


def check_rows(cases: Sequence[Judged]) -> Iterator[list[str]]:
    """Yield a row for each of V1 to V26."""
    for same in zip(*(case.verdict["checks"] for case in cases), strict=True):
        found = [check[column] for check in same for column in ("status", "found")]
        remedy = same[0]["remedy"] if any(check["status"] != "pass" for check in same) else "-"
        yield [check_name(same[0]), same[0]["title"], *found, same[0]["wanted"], remedy]


def check_name(check: Mapping[str, Any]) -> str:
    """Return the check's id, with a star if its vote weighs more."""
    return f"{check['id']}*" if check["starred"] else str(check["id"])


def between(verdict: Mapping[str, Any]) -> list[str]:
    """Return what lies between the accuracies, in sentences; what was not measured is left out."""
    sentences = []
    if verdict["weak_points"] is not None:
        sentences.append(f"from the attack under audit to the standard attacks: {verdict['weak_points']:.1f} points")
    if verdict["masked_points"] is not None:
        share, p = verdict["masked_share"], verdict["p_value"]
        more = [f"{percent(share)} of the standard accuracy"] if share is not None else []
        more += [f"exact McNemar p = {p:.2g}"] if p is not None else []
        sentences.append(f"from the standard attacks to all attacks: {verdict['masked_points']:.1f} points ({', '.join(more)})")
    if most := verdict["explains_most"]:
        sentences.append(
            f"the group that explains most is {most['group']}: without it {most['samples']} more samples would stay right, "
            f"of which {most['attack']} broke {most['alone']}"
        )
    return sentences


def missing_rows(audits: Sequence[Audit]) -> Iterator[list[str]]:
    """Yield audit, what did not run, and why."""
    for mark, audit in zip(marks(audits), audits, strict=True):
        yield from ([mark, one["what"], one["why"]] for one in audit["not_run"])


def setting_rows(audits: Sequence[Audit]) -> list[list[str]]:
    """Return a row for each setting, with its value in each audit."""
    columns = [dict(_flat("", audit["settings"])) | {"seconds": _decimal(audit["seconds"])} for audit in audits]
    names = dict.fromkeys(name for column in columns for name in column)
    return [[name, *(column.get(name, "-") for column in columns)] for name in names]


def percent(share: float) -> str:
    """Return a share in percent, as 12.3 %."""
    return f"{100 * share:.1f} %"


def with_interval(share: Share) -> str:
    """Return a share with its 95 % interval.

    Example:
        >>> with_interval(wilson(8, 10))
        '80.0 % (49.0 to 94.3 %)'
    """
    return f"{percent(share.value)} ({100 * share.low:.1f} to {100 * share.high:.1f} %)"


def _flat(prefix: str, settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(f"{prefix}{name}.", value)
        elif isinstance(value, list):
            yield prefix + name, ", ".join(map(str, value))
        else:
            yield prefix + name, "-" if value is None else f"{value:.5g}" if isinstance(value, float) else str(value)


def _passes(outcome: Mapping[str, Any]) -> str:
    """Return forward and backward passes for each image that was attacked."""
    attacked = tried(outcome)
    return f"{outcome['forwards'] / attacked:.4g} + {outcome['backwards'] / attacked:.4g}" if attacked else "-"


def _decimal(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"

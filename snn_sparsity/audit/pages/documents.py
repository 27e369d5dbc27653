"""What a reader sees of an audit: a page, its twin in Markdown, and what the command prints. They judge nothing themselves."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from snn_sparsity.audit.evidence import Evidence, ProtocolEvidence
from snn_sparsity.audit.judge.answers import Answers, Checked, counted, judge, notes
from snn_sparsity.audit.judge.case import Case
from snn_sparsity.audit.judge.checks.v12_radius import by_radius
from snn_sparsity.audit.judge.comparisons import SLACK
from snn_sparsity.audit.judge.statistics import Proportion
from snn_sparsity.documents.page import markdown_text
from snn_sparsity.runs.files import write_whole
from snn_sparsity.units import Levels

SEVERITY = {"NOT VALID": "bad", "MASKED": "bad", "WEAK ATTACK": "bad", "TOO FEW IMAGES": "doubt", "NO SIGN OF MASKING": "good"}
MEANING = {
    "NOT VALID": "The measurement itself is broken.",
    "MASKED": "The network's own gradient misses what another attack finds at the same cost.",
    "WEAK ATTACK": "The quoted attack misses what the network's own gradient finds.",
    "TOO FEW IMAGES": "Chance alone could explain what was seen.",
    "NO SIGN OF MASKING": "Nothing did significantly better than the network's own gradient. That is no proof of robustness.",
}
OPEN = ("fail", "warn")
"""What a reader must see of the checks."""
SAME = ("samples", "eps_levels", "claim", "budget", "flips")
"""Settings that must be equal for two audits to be compared."""


@dataclass(frozen=True)
class Shown:
    """One protocol of one audit, as a page shows it.

    Attributes:
        title: Which.
        protocol: Its evidence.
        answers: Its answers.
        levels: What is left without an attack, after the quoted one, after the native ones too, and after all: it never rises.
        curve: Worst case by radius in grey levels: it never rises.
        notes: What is said beside the checks.
    """

    title: str
    protocol: ProtocolEvidence
    answers: Answers
    levels: list[tuple[str, Proportion]]
    curve: list[tuple[int, Proportion]]
    notes: list[str]

    @property
    def severity(self) -> str:
        """Colour of the second answer."""
        return SEVERITY[self.answers.belief]

    @property
    def meaning(self) -> str:
        """The second answer in plain words."""
        return MEANING[self.answers.belief]

    @property
    def quoted(self) -> str:
        """The quoted attack, with its settings."""
        return next((one.attack for one in self.protocol.attacks if one.role == "claim"), "")

    @property
    def open_checks(self) -> list[Checked]:
        """Checks that failed or warn, what failed first."""
        return [one for status in OPEN for one in self.answers.checks if one.finding.status == status]

    @property
    def other_checks(self) -> list[Checked]:
        """The others, what did not run first."""
        return sorted(
            (one for one in self.answers.checks if one.finding.status not in OPEN), key=lambda one: one.finding.status != "not run"
        )

    @property
    def not_run(self) -> str:
        """The checks that did not run, by number."""
        return ", ".join(one.check.id for one in self.other_checks if one.finding.status == "not run")

    @property
    def attacks(self) -> list[list[str]]:
        """A row for each attack: what it is for, name, tried, broke, passes an image, seconds, settings or why it did not run."""
        return [
            [
                one.role if one.family == "none" else f"{one.role}: {one.family}",
                one.name,
                one.status,
                str(sum(answer is not None for answer in one.fooled)),
                str(sum(answer is True for answer in one.fooled)),
                f"{one.units:.0f}",
                f"{one.seconds:.1f}",
                one.why or one.attack,
            ]
            for one in self.protocol.attacks
        ]

    @property
    def comparisons(self) -> list[list[str]]:
        """A row for each comparison, the clearest first."""
        return [
            [
                one.family, one.name, str(one.tried), str(one.gained), str(one.lost),
                f"{100 * one.gain:+.1f} ({100 * one.interval[0]:+.1f} to {100 * one.interval[1]:+.1f})",
                f"{one.p:.2g}", f"{one.adjusted:.2g}",
            ]
            for one in sorted(self.answers.comparisons, key=lambda one: one.p)
        ]  # fmt: skip


ATTACKS = ["what for", "attack", "status", "tried", "broke", "passes", "seconds", "settings"]
COMPARISONS = ["family", "against the native attack", "images", "broke alone", "native alone", "gain in points (95 %)", "p", "after Holm"]
CHECKS = ["check", "status", "question", "found", "passes if", "remedy"]


def shown(audits: Sequence[Evidence]) -> list[Shown]:
    """Return every protocol of every audit, pixels first."""
    found = []
    for mark, evidence in zip(marks(audits), audits, strict=True):
        judged = judge(evidence)
        for name, protocol in evidence.protocols.items():
            case = Case(evidence, protocol)
            levels = [("no attack", case.clean)]
            # An attack in a larger ball is no part of what is left in this one.
            quoted = case.quoted if case.quoted_eps <= case.eps + SLACK else None
            quoted_at = "quoted attack" if case.same_ball else f"quoted attack, eps {Levels(case.quoted_eps)}"
            for label, mask in ((quoted_at, quoted), ("and native attacks", case.native), ("and all others", case.worst)):
                if mask is not None:
                    levels.append((label, levels[-1][1] & mask))
            found.append(
                Shown(
                    f"{mark} {name}".strip(), protocol, judged[name], [(label, case.share(mask)) for label, mask in levels],
                    [(round(255 * eps), share) for eps, share in by_radius(case)], notes(case),
                )
            )  # fmt: skip
    return sorted(found, key=lambda one: one.protocol.space != "image")


def marks(audits: Sequence[Evidence]) -> list[str]:
    """Return a letter for each audit, or nothing for one that is alone."""
    return [""] if len(audits) == 1 else [chr(ord("A") + place % 26) + "'" * (place // 26) for place in range(len(audits))]


def cautions(audits: Sequence[Evidence]) -> list[str]:
    """Return what must be known before any number is read."""
    found = ["INCOMPLETE: an audit was stopped before its end" for evidence in audits if not evidence.complete][:1]
    first = audits[0]
    differ = [name for name in SAME if any(other.settings.get(name) != first.settings.get(name) for other in audits)]
    differ += ["the images"] if any(_images(other) != _images(first) for other in audits) else []
    return found + ([f"NOT LIKE FOR LIKE: the audits differ in {', '.join(differ)}"] if differ else [])


def _images(evidence: Evidence) -> tuple[list[int], str | None]:
    return evidence.labels, (evidence.settings.get("data") or {}).get("test_sha256")


def audit_html(audits: Sequence[Evidence]) -> str:
    """Return one self-contained page about an audit, or several side by side; the same audits give the same bytes."""
    environment = Environment(
        loader=PackageLoader("snn_sparsity.audit.pages"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("audit.html").render(
        title=_title(audits), cautions=cautions(audits), protocols=shown(audits), settings=_settings(audits), not_run=_not_run(audits),
        marks=marks(audits), attacks_header=ATTACKS, comparisons_header=COMPARISONS,
    ) + "\n"  # fmt: skip


def audit_markdown(audits: Sequence[Evidence]) -> str:
    """Return what the page says in Markdown."""
    parts = [f"# {markdown_text(_title(audits))}", *(f"**{markdown_text(caution)}**" for caution in cautions(audits))]
    for one in shown(audits):
        answers = one.answers
        checks = [
            [each.check.id, each.finding.status, each.check.question, each.finding.found, each.check.threshold, each.check.remedy]
            for each in [*one.open_checks, *one.other_checks]
        ]
        parts += [
            f"## {markdown_text(one.title)}",
            f"**{markdown_text(answers.do)}**",
            f"- Accuracy under attack: {markdown_text(answers.under_attack)}\n"
            f"- Can the quoted number be believed? {markdown_text(f'{answers.belief}: {one.meaning} {answers.because}')}\n"
            f"- What was changed: {markdown_text(one.protocol.what)}\n"
            f"- Quoted attack: {markdown_text(one.quoted)}",
            markdown_table(["left", "accuracy"], [[label, counted(share)] for label, share in one.levels]),
            "### Comparisons at equal cost",
            markdown_table(COMPARISONS, one.comparisons) if one.comparisons else "None were made.",
            "### Checks",
            markdown_table(CHECKS, checks),
            *([markdown_list(one.notes)] if one.notes else []),
            "### Attacks",
            markdown_table(ATTACKS, one.attacks),
        ]
    missing = _not_run(audits)
    parts += ["## What did not run", markdown_table(["audit", "what", "why"], missing) if missing else "Nothing was left out."]
    parts += ["## Settings", markdown_table(["setting", *(mark or "value" for mark in marks(audits))], _settings(audits))]
    return "\n\n".join(parts) + "\n"


def audit_table(evidence: Evidence) -> str:
    """Return what the command prints: of each protocol what to do, the two answers, and what stands beside."""
    lines = list(cautions([evidence]))
    for one in shown([evidence]):
        widest = max(len(label) for label, _ in one.levels)
        lines += [
            one.answers.do,
            f"  {one.title}: {one.protocol.what}",
            f"  accuracy under attack                {one.answers.under_attack}",
            f"  can the quoted number be believed?   {one.answers.belief}: {one.answers.because}",
            *(f"  {label:<{widest}}  {counted(share)}" for label, share in one.levels),
            *(f"  {line}" for line in one.answers.beside),
            "",
        ]
    return "\n".join([*lines, *(f"did not run: {what}: {why}" for _, what, why in _not_run([evidence]))]).rstrip()


def write_documents(folder: Path, audits: Sequence[Evidence]) -> list[Path]:
    """Write ``audit.md`` and ``audit.html``, and return their paths."""
    write_whole(folder / "audit.md", audit_markdown(audits))
    write_whole(folder / "audit.html", audit_html(audits))
    return [folder / "audit.md", folder / "audit.html"]


def markdown_list(lines: Sequence[str]) -> str:
    """Return a list in Markdown, its lines as they are."""
    return "\n".join(f"- {markdown_text(line)}" for line in lines)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown, its cells as they are."""
    lines = [f"| {' | '.join(markdown_text(cell) for cell in row)} |" for row in (header, *rows)]
    return "\n".join([lines[0], f"|{'---|' * len(header)}", *lines[1:]])


def _title(audits: Sequence[Evidence]) -> str:
    return "Audits side by side" if len(audits) > 1 else f"Audit of {audits[0].settings.get('checkpoint') or 'a network'}"


def _settings(audits: Sequence[Evidence]) -> list[list[str]]:
    columns = [dict(_flat("", evidence.settings)) | {"seconds": f"{evidence.seconds:.1f}"} for evidence in audits]
    names = dict.fromkeys(name for column in columns for name in column)
    return [[name, *(column.get(name, "-") for column in columns)] for name in names]


def _flat(prefix: str, settings: dict[str, Any]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, value in settings.items():
        if isinstance(value, dict):
            found += _flat(f"{prefix}{name}.", value)
        else:
            found.append((prefix + name, ", ".join(map(str, value)) if isinstance(value, list) else "-" if value is None else str(value)))
    return found


def _not_run(audits: Sequence[Evidence]) -> list[list[str]]:
    return [[mark, one.what, one.why] for mark, evidence in zip(marks(audits), audits, strict=True) for one in evidence.not_run]

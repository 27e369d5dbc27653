"""The documents of an audit: a page, its twin in Markdown, and the table at the end of the command. They judge nothing themselves."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from matplotlib import style

from snn_sparsity.documents import page
from snn_sparsity.figures.drawing import STYLE
from snn_sparsity.report.audit_figures import accuracies, broken_samples, eps_sweep
from snn_sparsity.report.audit_rows import (
    ACCURACIES,
    ATTACKS,
    Audit,
    Judged,
    accuracy_rows,
    attack_rows,
    between,
    cautions,
    check_header,
    check_name,
    check_rows,
    judged,
    marks,
    missing_rows,
    setting_rows,
)

HOW_TO_READ = (
    "A low accuracy under attack is conclusive, a high one is not: it is an upper bound, and a stronger attack may still lower it. "
    "The worst case is per example: a sample counts as right if no attack of the battery fooled it. Samples that are wrong without an "
    "attack count as broken everywhere. Intervals are Wilson's, 95 %. What was done to pixels and what was done to encoded spikes are "
    "different threat models, each with a verdict of its own; pixels are the headline."
)
STARS = "A star marks a check whose vote weighs more: it needs no gradient of the network, or changes nothing but the backward pass."
COLUMNS = (
    "Accuracy alone is given where an attack was tried on every sample that is right without one. Passes: forward + backward. No gradient: "
    "samples whose whole gradient was zero at the start, and at any step."
)
BARS = (
    "samples that each attack was given, and broke. Groups after the standard attacks are given what survives those; inside a group, "
    "each attack is given what the earlier ones left."
)


class _Writer(NamedTuple):
    """How a document is written: each takes plain text."""

    heading: Callable[[str, int], str]
    paragraph: Callable[[str], str]
    bullets: Callable[[Sequence[str]], str]
    card: Callable[[str, str, str], str]
    table: Callable[[Sequence[str], Sequence[Sequence[str]]], str]


_HTML = _Writer(page.heading, page.paragraph, page.bullets, page.card, page.table)
_MARKDOWN = _Writer(
    heading=lambda text, level: f"{'#' * level} {page.markdown_text(text)}",
    paragraph=page.markdown_text,
    bullets=lambda items: "\n".join(f"- {page.markdown_text(item)}" for item in items),
    card=lambda label, headline, text: f"**{page.markdown_text(label)}: {page.markdown_text(headline)}**. {page.markdown_text(text)}",
    table=page.markdown_table,
)


def audit_html(audits: Sequence[Audit]) -> str:
    """Return one self-contained page about an audit, or several side by side; the same audits give the same bytes.

    Args:
        audits: What ``audit.json`` holds, verdicts included; at least one.
    """
    with style.context(STYLE, after_reset=True):
        return page.page(_title(audits), [*_head(audits, _HTML), *_overview(audits), *_body(audits, _HTML, pictures=True)])


def audit_markdown(audits: Sequence[Audit]) -> str:
    """Return what the page says, without its figures, in Markdown.

    Args:
        audits: What ``audit.json`` holds, verdicts included; at least one.
    """
    parts = [_MARKDOWN.heading(_title(audits), 1), *_head(audits, _MARKDOWN), *_body(audits, _MARKDOWN, pictures=False)]
    return "\n\n".join(parts) + "\n"


def audit_table(audit: Audit) -> str:
    """Return the table that the command prints: accuracies, attacks, checks that did not pass; last a verdict for each protocol."""
    cases = [case for same in judged([audit]).values() for case in same]
    lines = _aligned([ACCURACIES[1:], *(row[1:] for row in accuracy_rows(cases))])
    for case in cases:
        lines += ["", case.description, *_aligned(_printed(case))]
        lines += [f"{check_name(check):<5}{check['status']:<8}{check['title']}: {check['found']}"
                  for check in case.verdict["checks"] if check["status"] != "pass"]  # fmt: skip
    lines += [
        "",
        *(f"did not run: {what}: {why}" for _, what, why in missing_rows([audit])),
        *(": ".join(caution) for caution in cautions([audit])),
    ]
    return "\n".join([*lines, *(f"{case.name}: {case.words}: {case.verdict['sentence']}" for case in cases)])


def _printed(case: Judged) -> list[list[str]]:
    """Leave out what is too wide for a terminal; the sweep is not an attack that counts."""
    rows = [row for row in attack_rows(case) if row[0] != "sweep"]
    return [row[:6] for row in [ATTACKS, *rows]]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _title(audits: Sequence[Audit]) -> str:
    return "Audits side by side" if len(audits) > 1 else f"Audit of {audits[0]['settings']['checkpoint']}"


def _head(audits: Sequence[Audit], writer: _Writer) -> Iterator[str]:
    """Yield what must be read first: what is incomplete, the verdicts, the accuracies."""
    yield from (writer.card(*caution) for caution in cautions(audits))
    if len(audits) > 1:
        yield writer.bullets([f"{mark}: {audit['settings']['checkpoint']}" for mark, audit in zip(marks(audits), audits, strict=True)])
    cases = [case for same in judged(audits).values() for case in same]
    yield from (writer.card(case.label, case.words, case.verdict["sentence"]) for case in cases)
    yield writer.paragraph(HOW_TO_READ)
    yield writer.heading("Accuracies", 2)
    yield _table(writer, ACCURACIES, list(accuracy_rows(cases)))


def _overview(audits: Sequence[Audit]) -> Iterator[str]:
    cases = judged(audits)
    yield page.figure(accuracies(cases), "Accuracy, protocol by protocol, from no attack to the worst case over all attacks.")
    if sweep := eps_sweep(cases):
        yield page.figure(sweep, "Worst case over all eps up to this one. It must reach 0 at 255, where any image is allowed.")


def _body(audits: Sequence[Audit], writer: _Writer, *, pictures: bool) -> Iterator[str]:
    """Yield the evidence, protocol by protocol, then what did not run and the settings."""
    for same in judged(audits).values():
        yield from _protocol(same, writer)
        if pictures and (bars := broken_samples(same)):
            yield page.figure(bars, f"{same[0].name}: {BARS}")
    missing = list(missing_rows(audits))
    yield writer.heading("What did not run", 2)
    yield _table(writer, ["audit", "what", "why"], missing) if missing else writer.paragraph("Nothing was left out.")
    yield writer.heading("Settings", 2)
    yield writer.table(["setting", *(mark or "value" for mark in marks(audits))], setting_rows(audits))


def _protocol(same: Sequence[Judged], writer: _Writer) -> Iterator[str]:
    yield writer.heading(same[0].description, 2)
    for case in same:
        yield writer.paragraph(f"{case.label}: {case.words}.")
        yield writer.bullets([*between(case.verdict), *case.verdict["remarks"]])
    yield writer.heading(f"Checks: {same[0].name}", 3)
    yield writer.table(check_header(same), list(check_rows(same)))
    yield writer.paragraph(STARS)
    for case in same:
        yield writer.heading(f"Attacks: {case.label}", 3)
        yield writer.table(ATTACKS, list(attack_rows(case)))
    yield writer.paragraph(COLUMNS)


def _table(writer: _Writer, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Leave out the column of audits where there is but one."""
    alone = not any(row[0] for row in rows)
    return writer.table(header[alone:], [row[alone:] for row in rows])

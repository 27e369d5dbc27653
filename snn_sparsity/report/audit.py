"""The documents of an audit: a page, its twin in Markdown, and the table at the end of the command. They judge nothing themselves."""

from collections.abc import Iterator, Sequence

from matplotlib import style
from matplotlib.figure import Figure

from snn_sparsity.documents import page
from snn_sparsity.documents.blocks import Block, Bullets, Card, Cell, Heading, Picture, Table, words
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
TONES = {"fail": "bad", "failed": "bad", "vote": "bad", "warn": "doubt", "stopped": "doubt", "skipped": "faint", "not run": "faint"}
"""How a status is seen at a glance."""
LEVELS = "Accuracy, protocol by protocol, from no attack to the worst case over all attacks."
SWEEP = "Worst case over all eps up to this one. It must reach 0 at 255, where any image is allowed."
BARS = (
    "samples that each attack was given, and broke. Groups after the standard attacks are given what survives those; inside a group, "
    "each attack is given what the earlier ones left."
)


def audit_html(audits: Sequence[Audit]) -> str:
    """Return one self-contained page about an audit, or several side by side; the same audits give the same bytes.

    Args:
        audits: What ``audit.json`` holds, verdicts included; at least one.
    """
    with style.context(STYLE, after_reset=True):
        return page.html(_title(audits), _blocks(audits))


def audit_markdown(audits: Sequence[Audit]) -> str:
    """Return what the page says, without its figures, in Markdown.

    Args:
        audits: What ``audit.json`` holds, verdicts included; at least one.
    """
    return page.markdown(_title(audits), _blocks(audits))


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


def _blocks(audits: Sequence[Audit]) -> Iterator[Block]:
    """Yield what must be read first (what is incomplete, the verdicts, the accuracies), then the evidence, protocol by protocol."""
    cases = judged(audits)
    every = [case for same in cases.values() for case in same]
    yield from (Card(*caution) for caution in cautions(audits))
    if len(audits) > 1:
        yield Bullets([f"{mark}: {audit['settings']['checkpoint']}" for mark, audit in zip(marks(audits), audits, strict=True)])
    yield from (Card(case.label, case.words, case.verdict["sentence"]) for case in every)
    yield HOW_TO_READ
    yield Heading("Accuracies")
    yield _table(ACCURACIES, list(accuracy_rows(every)), numbers=("samples",))
    yield from _picture(
        "accuracies", accuracies(cases), "Accuracy, protocol by protocol, from no attack to the worst case over all attacks."
    )
    yield from _picture(
        "eps", eps_sweep(cases), "Worst case over all eps up to this one. It must reach 0 at 255, where any image is allowed."
    )
    for same in cases.values():
        yield from _protocol(same)
        yield from _picture("broken", broken_samples(same), f"{same[0].name}: {BARS}")
    missing = list(missing_rows(audits))
    yield Heading("What did not run")
    yield _table(["audit", "what", "why"], missing) if missing else "Nothing was left out."
    yield Heading("Settings")
    yield Table("settings", ["setting", *(mark or "value" for mark in marks(audits))], [words(row) for row in setting_rows(audits)])


def _picture(name: str, figure: Figure | None, caption: str) -> Iterator[Picture]:
    if figure is not None:
        yield Picture(name, lambda: figure, caption)


def _protocol(same: Sequence[Judged]) -> Iterator[Block]:
    yield Heading(same[0].description)
    for case in same:
        yield f"{case.label}: {case.words}."
        yield Bullets([*between(case.verdict), *case.verdict["remarks"]])
    yield Heading(f"Checks: {same[0].name}", 3)
    yield Table("checks", check_header(same), [_toned(row) for row in check_rows(same)])
    yield STARS
    for case in same:
        yield Heading(f"Attacks: {case.label}", 3)
        yield Table("attacks", ATTACKS, [_toned(row) for row in attack_rows(case)], numbers=("attacked", "broke", "seconds"))
    yield COLUMNS


def _toned(row: Sequence[str]) -> list[Cell]:
    """Return cells of which those that are a status are seen at a glance."""
    return [Cell(text, tone=TONES.get(text, "")) for text in row]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[str] = ()) -> Table:
    """Leave out the column of audits where there is but one."""
    alone = not any(row[0] for row in rows)
    return Table("", header[alone:], [words(row[alone:]) for row in rows], numbers)

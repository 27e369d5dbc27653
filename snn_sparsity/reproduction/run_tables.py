"""Tables of the runs themselves: by protocol, their audits, their records, and the lines their numbers come from."""

from collections.abc import Iterator, Sequence
from typing import Any

from snn_sparsity.documents.blocks import Cell, Table, measured, words
from snn_sparsity.reproduction.paper import DATASETS, network_name
from snn_sparsity.reproduction.paper_rows import HOW, WHICH, change, how, marked, which
from snn_sparsity.reproduction.protocols import AttackSettings, Protocol
from snn_sparsity.reproduction.results import Result, SeedGroup, pairs_of
from snn_sparsity.runs.metrics import Number, arrow

AUDITED = ("clean", "quoted", "native", "worst")


def protocol_table(protocol: Protocol, attacks: Sequence[AttackSettings], groups: Sequence[SeedGroup]) -> Table:
    """Return all runs that were attacked in one protocol; an accuracy with average pooling is followed by the change from max pooling.

    Args:
        protocol: The protocol.
        attacks: The attacks made in it, a column each.
        groups: All groups; those that were not attacked so are left out.
    """
    twins = {average.results[0].number: maximum for maximum, average in pairs_of(groups)}
    concerned = [group for group in groups if any(attack in group.attacks for attack in attacks)]
    columns: list[AttackSettings | None] = [None, *attacks]
    lines = []
    for group in concerned:
        cells = [_with_arrow(attack, group, twins.get(group.results[0].number)) for attack in columns]
        lines.append([*which(group), *cells, *how(group)])
    titles = ["clean, %", *(f"{attack.label}, %" for attack in attacks)]
    columns_shown = _distinct(titles)
    return Table(protocol.title, [*WHICH, *columns_shown, *HOW], lines, numbers=(*columns_shown, *HOW))


def audit_table(results: Sequence[Result]) -> Table:
    """Return the verdict of each audit of a run, by protocol; the strict one first."""
    audits = [(result, result.record.audit) for result in results if result.record.audit]
    lines = [_audit_line(result, name, audit) for result, audit in audits for name in audit.get("answers", {})]
    lines.sort(key=lambda line: line[1].text != "image: image, BN eval")
    titles = [f"{level}, %" for level in AUDITED]
    return Table("audits", ["run", "protocol", "images", *titles, "believed?", "what to do"], lines, numbers=("images",))


def record_table(results: Sequence[Result]) -> Table:
    """Return one line for each run: what it is, whether it ended, on what it ran and for how long."""
    header = ["run", "name", "state", "dataset", "network", "seed", "epochs", "numbers from", "device", "seconds", "commit"]
    lines = [[marked([result]), *words(_record_line(result))] for result in results]
    return Table("runs", header, lines, numbers=("seed", "seconds"))


def source_table(result: Result, attacks: Sequence[AttackSettings]) -> Table:
    """Return the numbers of a run that stand in tables, each with its line in metrics.csv."""
    numbers = [("clean", result.clean), *((attack.label, result.attacked(attack)) for attack in attacks)]
    lines = [_source_line(what, number) for what, number in numbers if number is not None]
    return Table(f"sources {result.mark}", ["number", "%", "logged as", "epoch", "file", "line"], lines, numbers=("%", "epoch", "line"))


def _with_arrow(attack: AttackSettings | None, group: SeedGroup, twin: SeedGroup | None) -> Cell:
    accuracy = group.accuracy(attack)
    found = change(attack, group, twin) if twin is not None else None
    if accuracy is None or found is None:
        return (
            measured(accuracy) if accuracy is not None else Cell(group.cell(attack) if attack is None or attack in group.attacks else "-")
        )
    return Cell(f"{accuracy} ({arrow(found[0])})", (*found[1].numbers, *found[2].numbers))


def _distinct(titles: Sequence[str]) -> list[str]:
    """Number titles that would otherwise be the same: attacks that differ in a setting that the title does not show."""
    return [title if titles.count(title) == 1 else f"{title} #{titles[: place + 1].count(title)}" for place, title in enumerate(titles)]


def _audit_line(result: Result, name: str, audit: Any) -> list[Cell]:
    answers, evidence = audit["answers"][name], audit["protocols"][name]
    cells = [marked([result]), *words([f"{name}: {evidence['space']}, BN {evidence['batch_norm']}", audit["settings"]["samples"]])]
    for level in AUDITED:
        share = answers["accuracy"].get(level)
        source = f"audit/audit.json of {result.mark}, answers.{name}.accuracy.{level}"
        text = "-" if share is None else f"{100 * share['value']:.1f} [{100 * share['low']:.1f}, {100 * share['high']:.1f}]"
        cells.append(Cell(text, (source,) if share else ()))
    stopped = "" if audit.get("complete", True) else " (STOPPED EARLY)"
    return [*cells, *words([answers["belief"] + stopped, answers["do"]])]


def _record_line(result: Result) -> Iterator[object]:
    record = result.record
    dataset, network, depth, pool = record.setting
    yield from (record.name, _state(result), DATASETS.get(dataset, dataset), f"{network_name(network, depth)} {pool}")
    yield from (record.seed, f"{record.epochs} of {record.max_epochs}", _judged(result))
    parts = [*record.record.get("earlier", []), record.record]
    seconds = sum(float(part.get("wall_seconds", 0)) for part in parts)
    unknown = any("wall_seconds" not in part for part in parts)
    yield str(record.record.get("device", "?"))
    yield f"{'more than ' if unknown else ''}{seconds:,.0f}"
    yield str(record.record.get("git_commit") or "?")[:10]


def _state(result: Result) -> str:
    if result.failure:
        return f"FAILED: {result.failure}"
    record = result.record
    finished = record.record.get("status") == "finished" and record.epochs >= record.max_epochs
    return "finished" if finished else f"UNFINISHED ({record.record.get('status', 'no record')})"


def _judged(result: Result) -> str:
    if result.epoch is None:
        return "-"
    return "test of the best checkpoint" if result.tested else f"epoch {result.epoch} (from 0)"


def _source_line(what: str, number: Number) -> list[Cell]:
    value = Cell(f"{100 * number.value:.2f}", (number,))
    file = "/".join(number.file.parts[-2:]) if number.file.parent.name == "test" else number.file.name
    return [Cell(what), value, *words([number.name, number.epoch, file, number.line])]

"""Tables of the runs themselves: by protocol, their audits, their records, and the lines their numbers come from."""

from collections.abc import Sequence

from snn_sparsity.audit.judge.statistics import Proportion
from snn_sparsity.documents.blocks import Cell, Table, words
from snn_sparsity.protocols import Protocol
from snn_sparsity.reproduction.attack_settings import AttackSettings
from snn_sparsity.reproduction.paper import DATASETS, network_name
from snn_sparsity.reproduction.paper_rows import HOW, WHICH, attacked, how, marked, which
from snn_sparsity.reproduction.results import Result, SeedGroup, pairs_of

AUDITED = ("clean", "quoted", "native", "worst")


def protocol_table(protocol: Protocol, attacks: Sequence[AttackSettings], groups: Sequence[SeedGroup]) -> Table:
    """Return all runs that were attacked in one protocol; an accuracy with average pooling is followed by the change from max pooling.

    Args:
        protocol: The protocol.
        attacks: The attacks made in it, a column each.
        groups: All groups; those that were not attacked so are left out.
    """
    twins = {average.results[0].number: maximum for maximum, average in pairs_of(groups)}
    lines = [
        [*which(group), *(attacked(attack, group, twins.get(group.results[0].number)) for attack in (None, *attacks)), how(group)]
        for group in groups
        if any(attack in group.attacks for attack in attacks)
    ]
    titles = ["clean, %", *(f"{attack.short}, %" for attack in attacks)]
    # Attacks may differ in a setting that the title does not show.
    distinct = [each if titles.count(each) == 1 else f"{each} #{titles[: place + 1].count(each)}" for place, each in enumerate(titles)]
    return Table(protocol.title, [*WHICH, *distinct, HOW], lines, numbers=distinct)


def verdict_table(results: Sequence[Result]) -> Table:
    """Return the verdict of each audit of a run, by protocol; the strict one first."""
    lines = []
    for result in results:
        audit = result.record.audit or {}
        stopped = "" if audit.get("complete", True) else " (STOPPED EARLY)"
        for name, answers in audit.get("answers", {}).items():
            evidence = audit["protocols"][name]
            cells = [marked([result]), *words([f"{name}: {evidence['space']}, BN {evidence['batch_norm']}", len(audit["labels"])])]
            for level in AUDITED:
                share = answers["accuracy"].get(level)
                source = f"audit/audit.json of {result.mark}, answers.{name}.accuracy.{level}"
                text = "-" if share is None else Proportion(**share).percent
                cells.append(Cell(text, (source,) if share else ()))
            lines.append([*cells, *words([answers["belief"] + stopped, answers["do"]])])
    lines.sort(key=lambda line: line[1].text != "image: image, BN eval")
    titles = [f"{level}, %" for level in AUDITED]
    return Table("audits", ["run", "protocol", "images", *titles, "believed?", "what to do"], lines, numbers=("images",))


def record_table(results: Sequence[Result]) -> Table:
    """Return one line for each run: what it is, whether it ended, on what it ran and for how long."""
    header = ["run", "name", "state", "dataset", "network", "seed", "epochs", "numbers from", "device", "seconds", "commit"]
    lines = []
    for result in results:
        record, told = result.record, result.record.record
        dataset, network, depth, pool = record.setting
        state = "finished" if result.finished else f"UNFINISHED ({told.get('status', 'no record')})"
        judged = "-" if result.epoch is None else f"epoch {result.epoch} (from 0)"
        parts = [*told.get("earlier", []), told]
        unknown = any("wall_seconds" not in part for part in parts)
        about = [
            record.name,
            f"FAILED: {result.failure}" if result.failure else state,
            DATASETS.get(dataset, dataset),
            f"{network_name(network, depth)} {pool}",
            record.seed,
            f"{record.epochs} of {record.max_epochs}",
            "test of the best checkpoint" if result.tested and result.epoch is not None else judged,
            told.get("device", "?"),
            f"{'more than ' if unknown else ''}{sum(float(part.get('wall_seconds', 0)) for part in parts):,.0f}",
            str(told.get("git_commit") or "?")[:10],
        ]
        lines.append([marked([result]), *words(about)])
    return Table("runs", header, lines, numbers=("seed", "seconds"))


def source_table(result: Result, attacks: Sequence[AttackSettings]) -> Table:
    """Return the numbers of a run that stand in tables, each with its line in metrics.csv."""
    numbers = [("clean", result.clean), *((attack.label, result.attacked(attack)) for attack in attacks)]
    lines = []
    for what, number in numbers:
        if number is not None:
            file = "/".join(number.file.parts[-2:]) if number.file.parent.name == "test" else number.file.name
            value = Cell(f"{100 * number.value:.2f}", (number,))
            lines.append([Cell(what), value, *words([number.name, number.epoch, file, number.line])])
    return Table(f"sources {result.mark}", ["number", "%", "logged as", "epoch", "file", "line"], lines, numbers=("%", "epoch", "line"))

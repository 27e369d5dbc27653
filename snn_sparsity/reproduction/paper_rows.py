"""The paper's Tables 1 to 3, with the runs beside them."""

from collections.abc import Sequence
from dataclasses import replace

from snn_sparsity.documents.blocks import MISSING, Cell, Link, Table, accuracy_cell, words
from snn_sparsity.protocols import PAPER
from snn_sparsity.reproduction.attack_settings import AttackSettings
from snn_sparsity.reproduction.conditions import conditions
from snn_sparsity.reproduction.paper import COLUMNS, DATASETS, PaperRow, max_pooled, network_name, paper, paper_rows
from snn_sparsity.reproduction.results import Result, SeedGroup, pairs_of
from snn_sparsity.runs.metrics import Accuracy, arrow, signed

TITLES = {"fgsm": "FGSM", "pgd": "PGD-7", "clean": "clean"}
WHICH = ("dataset", "network", "runs", "not as in the paper")
HOW = "seeds, epochs, images (attacked)"
SIGN = "the paper prints {}, its own numbers give {}"


def paper_table(number: int, groups: Sequence[SeedGroup]) -> Table:
    """Return Table 1, 2 or 3: the paper's accuracy, that of the runs (mean and standard deviation over seeds), the difference.

    A row of the paper has a line for each group of runs that are its network, most training first, or one with gaps. Table 3's
    accuracies are followed by the change from max pooling.

    Args:
        number: 1, 2 or 3.
        groups: All groups; those of no row of the table are left out.
    """
    columns = [f"{TITLES[column]} {part}" for column in COLUMNS for part in ("paper", "here", "diff.")]
    twins = {average.results[0].number: maximum for maximum, average in pairs_of(groups)}
    lines = []
    for place, row in enumerate(paper_rows(number), 1):
        if row.quoted:
            continue
        matching = sorted((group for group in groups if group.first.setting == row.setting), key=lambda group: -group.trained)
        lines += [_line(row, place, group, twins) for group in matching] or [_line(row, place, None, twins)]
    return Table(f"Table {number}, {PAPER.title}", [*WHICH, *columns, HOW], lines, numbers=columns)


def split(table: Table) -> tuple[Table, Table]:
    """Return the rows that runs stand beside, and the others without the columns that are empty there."""
    runs = table.header.index("runs")
    here, missing = ([row for row in table.rows if (row[runs].text != MISSING.text) is found] for found in (True, False))
    kept = [place for place, column in enumerate(table.header) if any(row[place].text != MISSING.text for row in missing)]
    header = [table.header[place] for place in kept]
    numbers = [column for column in header if column in table.numbers]
    return replace(table, rows=here), Table(table.name, header, [[row[place] for place in kept] for row in missing], numbers)


def table_title(number: int) -> str:
    """Return what a table of the paper is about."""
    return f"Table {number}: {paper()['tables'][number]['title']}"


def which(group: SeedGroup) -> list[Cell]:
    """Return the cells that say what a line is about, and in what it is not the paper's."""
    dataset, network, depth, pool = group.first.setting
    what, name, said = words([DATASETS.get(dataset, dataset), f"{network_name(network, depth)} {pool}", conditions(group) or "-"])
    return [what, name, marked(group.results), said]


def marked(results: Sequence[Result]) -> Cell:
    """Return the cell that names runs; on a page it leads to them."""
    links = tuple(Link(f"R{result.number}", f"#R{result.number}") for result in results)
    return Cell(" ".join(result.mark for result in results), links=links)


def how(group: SeedGroup) -> Cell:
    """Return the cell that says how a line's numbers came to be.

    Example:
        ``3 seeds, 100 epochs, 10,000 (1,000)``
    """
    epochs = sorted({result.record.epochs for result in group.results})
    first = group.results[0]
    judged, under_attack = ("?" if count is None else f"{count:,}" for count in (first.clean_images, first.attacked_images))
    attacked = f" ({under_attack})" if first.attacks else ""
    seeds = f"{len(group.sound)} seed{'s' * (len(group.sound) != 1)}"
    return Cell(f"{seeds}, {', '.join(map(str, epochs))} epochs, {judged}{attacked}")


def attacked(attack: AttackSettings | None, group: SeedGroup, twin: SeedGroup | None) -> Cell:
    """Return the cell of an accuracy, followed by its change from max pooling where there is a twin with it."""
    accuracy = group.accuracy(attack)
    if accuracy is None:
        return Cell(group.cell(attack)) if attack is None or attack in group.attacks else MISSING
    found = change(attack, group, twin) if twin is not None else None
    return Cell(f"{accuracy} ({arrow(found[0])})", (*found[1].numbers, *found[2].numbers)) if found else accuracy_cell(accuracy)


def change(attack: AttackSettings | None, group: SeedGroup, twin: SeedGroup) -> tuple[float, Accuracy, Accuracy] | None:
    """Return the change of an accuracy from max to average pooling, in points, and the two accuracies; None where one is missing."""
    ours, before = group.accuracy(attack), twin.accuracy(attack)
    return None if ours is None or before is None else (ours.mean - before.mean, ours, before)


def arrows(groups: Sequence[SeedGroup]) -> tuple[int, int]:
    """Return how many of Table 3's arrows the runs have measured, and how many of these point as the paper's own numbers do."""
    measured_changes = []
    for maximum, average in pairs_of(groups):
        for row in paper_rows(3):
            if row.setting == average.first.setting:
                for column in COLUMNS:
                    attack = _attack(average, column)
                    found = change(attack, average, maximum) if attack or column == "clean" else None
                    if found is not None:
                        measured_changes.append((found[0] > 0) == (_own_change(row, column) > 0))
    return len(measured_changes), sum(measured_changes)


def _line(row: PaperRow, place: int, group: SeedGroup | None, twins: dict[int, SeedGroup]) -> list[Cell]:
    name = f"{network_name(row.network, row.depth)} {row.pool}"
    cells = which(group) if group is not None else words([DATASETS[row.dataset], name, "-", "no run"])
    for column in COLUMNS:
        told = f"{row.accuracy[column]:.2f}"
        if row.printed:
            printed, own = row.printed[column], _own_change(row, column)
            told += f" ({arrow(printed) if printed * own > 0 else SIGN.format(arrow(printed), arrow(own))})"
        cells.append(Cell(told, (f"paper_tables.yaml, table {row.table}, row {place}",)))
        attack = _attack(group, column) if group is not None else None
        if group is None or (attack is None and column != "clean"):
            cells += [MISSING, MISSING]
            continue
        accuracy = group.accuracy(attack)
        cells.append(attacked(attack, group, twins.get(group.results[0].number)))
        cells.append(Cell(signed(accuracy.mean - row.accuracy[column]), tuple(accuracy.numbers)) if accuracy else MISSING)
    return [*cells, how(group) if group is not None else MISSING]


def _attack(group: SeedGroup, column: str) -> AttackSettings | None:
    """Return the attack that is a column of the paper; None for the clean one."""
    return next((attack for attack in group.attacks if attack.column == column), None)


def _own_change(row: PaperRow, column: str) -> float:
    """Return the change from max pooling that the paper's accuracies give."""
    return row.accuracy[column] - max_pooled(row).accuracy[column]

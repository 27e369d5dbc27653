"""The card of a run that is kept: what it was, on what it ran, what it came to."""

from snn_sparsity.documents import page
from snn_sparsity.documents.blocks import Block, Table, words
from snn_sparsity.reproduction.attack_settings import attacks_of
from snn_sparsity.reproduction.conditions import conditions
from snn_sparsity.reproduction.results import SeedGroup, results_of
from snn_sparsity.reproduction.run_tables import record_table, source_table
from snn_sparsity.runs.records import Record


def card(record: Record) -> str:
    """Return the card in Markdown; its numbers name their lines of ``metrics.csv``, which lies beside it."""
    (result,) = results_of([record])
    about = record_table([result])
    facts = [[title, cell.text] for title, cell in list(zip(about.header, about.rows[0], strict=True))[1:]]
    facts += [["not as in the paper", conditions(SeedGroup([result])) or "nothing"]]
    facts += [[f"images, {split}", f"{record.images(split) or 0:,}"] for split in ("train", "validation", "test")]
    attacks = list(attacks_of(record).values())
    blocks: list[Block] = [
        Table("facts", ["what", "which"], [words(fact) for fact in facts]),
        f"Accuracies are shares of images. {'; '.join(f'{attack.label} is {attack.details}' for attack in attacks)}",
        source_table(result, attacks),
        "Settings: config.yaml. Everything that was measured: metrics.csv. Versions and checksums of the data: run.json.",
    ]
    return page.markdown(record.name, blocks)

"""The report on a set of runs: a page, its twin in Markdown, and every number as CSV. The same runs give the same bytes."""

import csv
import io
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from snn_sparsity.documents import page
from snn_sparsity.documents.blocks import Block, Bullets, Contents, Folded, Heading, Link, Picture, Table, flat
from snn_sparsity.figures.catalogue import available, figure_of
from snn_sparsity.protocols import PAPER
from snn_sparsity.reproduction import defences
from snn_sparsity.reproduction.answer import sentences, trained_longest
from snn_sparsity.reproduction.causal import document
from snn_sparsity.reproduction.causal.effects import about_effects, effect_table, effects
from snn_sparsity.reproduction.causal.trained import Trained
from snn_sparsity.reproduction.claim import claim, claim_table, series_of
from snn_sparsity.reproduction.defences import (
    COLOURS,
    accuracy_table,
    audited,
    cost_table,
    defence_runs,
    is_plain,
    quoted_table,
    survival,
    told,
)
from snn_sparsity.reproduction.paper import DATASETS, network_name, paper
from snn_sparsity.reproduction.paper_figures import SILENT, figure_numbers, silence_table, zero_table, zeros_at_poolings
from snn_sparsity.reproduction.paper_rows import arrows, paper_table, split, table_title
from snn_sparsity.reproduction.results import Result, groups_of, pairs_of, protocols_of, results_of
from snn_sparsity.reproduction.run_tables import protocol_table, record_table, source_table, verdict_table
from snn_sparsity.reproduction.tradeoff import curves, tradeoff
from snn_sparsity.runs.records import Record

TITLE = "Do sparse gradients make spiking networks robust?"
COLUMNS = ("table", "row", "column", "value", "sources")
INTRODUCTION = (
    f"The paper is {paper()['source']}; its numbers are those of its Tables 1 to 3. All others are read from the runs below: each stands "
    "in a line of a metrics.csv, which the section of its run and report.csv name. Accuracies are shares of images in percent; over "
    "several seeds their mean ± standard deviation. A run's numbers are those of the epoch of its best checkpoint, or of a test of that "
    "checkpoint on all test images."
)
BOUND = (
    "Accuracy under attack is an upper bound: a stronger attack may lower it. What was done to encoded spikes and what was done to pixels "
    "are different threat models, and never share a column."
)
QUOTED_ROWS = (
    "Quoted rows are the paper's quotations from others (input discretisation, Hire-SNN, SNN-RAT, a vanilla VGG-11): there the image is "
    "attacked, not the spikes. That is another threat model, so that the paper's comparison with them is none."
)
TWO_SIGNS = "Where the paper prints an arrow that its own accuracies contradict, both are given."
DEPENDENT = (
    "The paper claims that sparse gradients make a network robust: r above 0. Epochs of one run are not independent, so that the first "
    "interval is too narrow; the one over runs, each at its best epoch, is fair but needs many runs. Both rise as training goes on: hence "
    "r given clean accuracy, what is left once a straight line in clean accuracy is taken from both."
)
FIGURES = (
    "The paper draws these figures in BatchNorm's training mode (the published hooks need it), with a hook on modules without children: "
    "neurons appear as their surrogates, once per time step. There BatchNorm hands the sums of its batch to every position and fills the "
    "zeros that arrive from the pooling; in eval mode it does not. A mean over poolings of different kinds is no operation's share."
)
DEFENCES = (
    "Attacks change the pixels by at most 8/255, the same change at every time step, BatchNorm in eval mode: as the papers have it that "
    "propose these defences, not the one whose tables quote them. 'Quoted attack' and 'worst case' are the audit's, on the same images: "
    "the attack whose number would be quoted, and everything that was tried."
)
COSTS = (
    "What they cost: passes are forward + backward passes of all time steps for each batch of training, as the objective states them; "
    "seconds are measured, a batch and its loading. Zeros are those of the loss's gradient at the network's input and at its first pooling."
)
NO_AUDIT = "None of these runs was audited (snn-sparsity audit)."


class Report:
    """The report on some runs.

    Args:
        records: The runs.
        folder: Where the report will lie: links lead from there.
        experiments: Networks of the causal experiment by the file they were read from; the largest one answers.
    """

    def __init__(self, records: Sequence[Record], folder: Path, experiments: Mapping[Path, Sequence[Trained]] | None = None) -> None:
        self.folder = folder
        self.results = results_of(records)
        self.plain = [result for result in self.results if is_plain(result)]
        self.groups = groups_of(self.plain)
        self.protocols = protocols_of(self.groups)
        self.series = {protocol: series_of(self.plain, attacks) for protocol, attacks in self.protocols.items()}
        self.experiments = dict(sorted((experiments or {}).items(), key=lambda each: -len(each[1]) * len(each[1][0].clean)))
        self.networks = next(iter(self.experiments.values()), [])
        self.defences = defence_runs(self.results)
        body = list(self._body())
        causal = [Picture("causal", partial(document.figure, self.networks), document.CAPTION)] if self.networks else []
        contents = Contents([Link(each.text, f"#{each.anchor}") for each in body if isinstance(each, Heading) and each.level == 2])
        self.blocks: list[Block] = [Bullets(self.answer), *causal, contents, *body]

    def html(self) -> str:
        """Return one page with everything inside."""
        return page.html(TITLE, self.blocks)

    def markdown(self) -> str:
        """Return the same in Markdown; figures are files in ``figures/`` beside it."""
        return page.markdown(TITLE, self.blocks, "figures")

    def csv(self) -> str:
        """Return every number that comes from a run or the paper, with its sources: paths from the report's folder on, and lines."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for table in (block for block in flat(self.blocks) if isinstance(block, Table)):
            for row in table.rows:
                label = ", ".join(cell.text for cell in row if not cell.sources and cell.text != "-")
                for column, cell in zip(table.header, row, strict=True):
                    if cell.sources:
                        lines = [each if isinstance(each, str) else f"{self._from_here(each.file)}:{each.line}" for each in cell.sources]
                        writer.writerow([table.name, label, column, cell.text, "; ".join(lines)])
        return text.getvalue()

    def figures(self) -> dict[str, bytes]:
        """Return the figures by name, as PNG files."""
        return {block.name: block.png for block in flat(self.blocks) if isinstance(block, Picture)}

    @property
    def answer(self) -> list[str]:
        """What the paper claims, what the runs found, how sure."""
        return sentences(self.networks, self.groups, self._others)

    @property
    def _others(self) -> list[Trained]:
        return [network for experiment in list(self.experiments.values())[1:] for network in experiment]

    @property
    def parts(self) -> dict[str, Callable[[], str]]:
        """What other documents may take over, in Markdown, by name."""
        found, longest = effects(self.networks), effects(trained_longest(self.networks, self._others))
        made: dict[str, list[Block]] = {
            "answer": [Bullets(self.answer)],
            "effects": [effect_table(found)] if found else [],
            "effects trained longest": [effect_table(longest)] if longest else [],
            "networks": [document.network_table(self.networks)] if self.networks else [],
            "rows": [split(paper_table(number, self.groups))[0] for number in (2, 3)],
            "zeros": [zero_table(self.results)],
            "silence": [silence_table(self.plain)],
            "defences": [accuracy_table(self.defences)],
            "costs": [cost_table(self.defences)],
            "quoted": [Bullets(survival(self.defences))],
            **{f"audit of {name}": [Bullets(told(name, self.defences))] for name in COLOURS},
        }
        return {name: partial(page.fragment, blocks) for name, blocks in made.items()}

    def _body(self) -> Iterator[Block]:
        yield _section("How to read it")
        yield INTRODUCTION
        yield BOUND
        yield from self._experiments()
        yield from self._protocols()
        yield from self._defences()
        yield from self._audits()
        yield from self._claims()
        yield from self._gradients()
        yield from self._paper_tables()
        yield from self._runs()

    def _experiments(self) -> Iterator[Block]:
        for file, networks in self.experiments.items():
            yield _section(f"The causal experiment: {len(networks)} networks, {len(networks[0].clean)} images")
            if found := effects(networks):
                yield about_effects(found)
                yield effect_table(found)
            yield document.network_table(networks)
            yield Link("All of it: every comparison in pairs", self._from_here(file.with_name("index.html")))

    def _defences(self) -> Iterator[Block]:
        if not self.defences:
            return
        yield _section("Defences, attacked on pixels")
        yield DEFENCES
        yield accuracy_table(self.defences)
        if judged := [result for result in self.defences if audited(result)]:
            caption = (
                "Clean accuracy against accuracy under attacks on pixels: from what is quoted (hollow) to the audit's worst case (filled)."
            )
            yield Picture("defences", partial(defences.figure, judged), caption)
        yield COSTS
        yield cost_table(self.defences)

    def _paper_tables(self) -> Iterator[Block]:
        for number in paper()["tables"]:
            yield _section(f"{table_title(number)}. {PAPER.title[0].upper()}{PAPER.title[1:]}")
            table = paper_table(number, self.groups)
            measured, missing = split(table)
            if measured.rows:
                yield measured
            if missing.rows:
                yield Folded(f"{len(missing.rows)} rows of Table {number} without a run", [missing])
        yield _section("The rows that the paper quotes")
        yield QUOTED_ROWS
        yield quoted_table(self.defences)
        yield Bullets(survival(self.defences))
        yield TWO_SIGNS
        count, agreeing = arrows(self.groups)
        yield f"Of Table 3's 18 arrows, these runs have measured {count}; {agreeing} of them point as the paper's own numbers do."

    def _protocols(self) -> Iterator[Block]:
        for protocol, attacks in self.protocols.items():
            groups = [group for group in self.groups if any(attack in group.attacks for attack in attacks)]
            name = f"{protocol.space}_{protocol.batch_norm}"
            yield _section(f"Undefended networks, {protocol.title}")
            yield "; ".join(f"{attack.label} is {attack.details}" for attack in attacks) + "."
            yield protocol_table(protocol, attacks, self.groups)
            caption = f"Clean accuracy against accuracy under attack; arrows lead from max to average pooling; {protocol.title}"
            yield Picture(f"tradeoff_{name}", partial(tradeoff, protocol, attacks, groups), caption)
            caption = f"Accuracy over the epochs, on the images that are judged at each epoch; dotted is the paper's; {protocol.title}"
            yield Picture(f"curves_{name}", partial(curves, protocol, attacks, groups), caption)

    def _audits(self) -> Iterator[Block]:
        yield _section("Audits")
        table = verdict_table(self.results)
        if table.rows:
            yield "Each accuracy with its 95 % interval, from the audit.json of its run; what the words mean is in docs/audit.md."
            yield table
        else:
            yield NO_AUDIT

    def _claims(self) -> Iterator[Block]:
        yield _section("Do zeros and accuracy go together, over runs and epochs?")
        yield DEPENDENT
        for protocol, series in self.series.items():
            if series:
                yield Heading(protocol.title[0].upper() + protocol.title[1:], 3)
                yield claim_table(protocol, series)
            for dataset in dict.fromkeys(each.dataset for each in series):
                same = [each for each in series if each.dataset == dataset]
                name = re.sub(r"\W+", "_", f"claim_{protocol.space}_{protocol.batch_norm}_{dataset}")
                caption = f"{DATASETS.get(dataset, dataset)}: accuracy under attack against zeros in the gradient; {protocol.title}"
                yield Picture(name, partial(claim, protocol, same), caption)

    def _gradients(self) -> Iterator[Block]:
        """Yield the paper's Figures 1 and 3 of each pair of groups, else of each group, by its first run."""
        yield _section("Figures 1 and 3: zeros and norms of the gradient at every operation")
        yield FIGURES
        yield figure_numbers()
        if any(zeros_at_poolings(result) for result in self.results):
            yield zero_table(self.results)
        if (grown := silence_table(self.plain)).rows:
            yield SILENT
            yield grown
        pairs = [list(pair) for pair in pairs_of(self.groups)]
        paired = {group.results[0].number for pair in pairs for group in pair}
        found = False
        for groups in [*pairs, *([group] for group in self.groups if group.results[0].number not in paired)]:
            results = [result for group in groups for result in group.sound[:1] if "gradients" in available(result.record.run)]
            if results:
                found = True
                yield _gradient_picture(results)
        if not found:
            yield "No run has such metrics (the probe GradientSparsity)."

    def _runs(self) -> Iterator[Block]:
        yield _section("Runs")
        yield record_table(self.results)
        attacks = [attack for same in self.protocols.values() for attack in same]
        for result in self.results:
            yield Heading(f"R{result.number} {result.record.name}", 3, f"R{result.number}")
            yield Link(f"{result.record.path.name}: the run's record", self._from_here(result.record.path / "run.json"))
            yield source_table(result, attacks)

    def _from_here(self, path: Path) -> str:
        return Path(os.path.relpath(path.resolve(), self.folder.resolve())).as_posix()


def _section(text: str) -> Heading:
    return Heading(text, 2, re.sub(r"\W+", "-", text.lower()).strip("-"))


def _gradient_picture(results: Sequence[Result]) -> Picture:
    _, network, depth, _ = results[0].record.setting
    dataset = results[0].record.dataset
    shown = ", ".join(f"{result.record.setting[3]} pooling R{result.number}" for result in results)
    caption = f"{DATASETS.get(dataset, dataset)}, {network_name(network, depth)}: {shown}; clean spikes, BatchNorm eval"
    runs = [result.record.run for result in results]
    return Picture("gradients_" + "_".join(f"r{result.number}" for result in results), lambda: figure_of("gradients", runs), caption)

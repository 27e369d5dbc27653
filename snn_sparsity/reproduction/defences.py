"""Defences: what the paper quotes of them, what they came to here under attacks on pixels, what an audit leaves, and what they cost."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from snn_sparsity.audit.judge.answers import counted
from snn_sparsity.audit.judge.statistics import Proportion
from snn_sparsity.documents.blocks import MISSING, Cell, Table, accuracy_cell, words
from snn_sparsity.figures.drawing import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILLION, YELLOW, canvas, labelled, legend
from snn_sparsity.measure.names import FIRING_RATE, GRAD_ZERO, SURROGATE_FIRING_RATE, SYNOPS
from snn_sparsity.protocols import STRICT
from snn_sparsity.reproduction.attack_settings import AttackSettings
from snn_sparsity.reproduction.paper import DATASETS, PaperRow, network_name, paper_rows
from snn_sparsity.reproduction.paper_rows import marked
from snn_sparsity.reproduction.results import Result
from snn_sparsity.reproduction.tradeoff import PAPER_COLOUR
from snn_sparsity.runs.metrics import Accuracy, Number
from snn_sparsity.runs.records import Record

UNDEFENDED = "none"
OBJECTIVES = {"AdversarialTraining": "adversarial training", "TRADES": "TRADES", "SparseGradient": "SR", "SharedNoise": "HIRE-SNN"}
VGGS = {8: "VGG-11", 3: "VGG-5"}
"""Names in the field, by the number of convolutions."""
COLOURS = {UNDEFENDED: "#000000", "adversarial training": BLUE, "SNN-RAT": SKY, "SR": GREEN, "SR + adversarial training": ORANGE,
           "HIRE-SNN": PURPLE, "input discretisation": VERMILLION, "TRADES": YELLOW}  # fmt: skip


class Defence(NamedTuple):
    """What defends a network, and which network it is.

    Attributes:
        name: ``none``, ``SNN-RAT``, ``SR``, ...
        network: ``VGG-11``, ``WRN-16-4``, ``SEW-ResNet18 max``, ...
    """

    name: str
    network: str

    @classmethod
    def of(cls, record: Record) -> "Defence":
        """Return the defence of a run, as its settings tell it."""
        objective = record.config["model"].get("objective") or {}
        kind = str(objective.get("class_path", "")).rsplit(".", 1)[-1]
        callbacks = [str(each.get("class_path", "")).rsplit(".", 1)[-1] for each in record.config["trainer"].get("callbacks") or []]
        name = OBJECTIVES.get(kind, UNDEFENDED)
        if "OrthogonalRetraction" in callbacks:
            name = "SNN-RAT"
        elif kind == "SparseGradient" and (objective.get("init_args") or {}).get("attack"):
            name = "SR + adversarial training"
        elif (record.data.get("encoder") or {}).get("class") == "QuantisedEncoder":
            name = "input discretisation"
        return cls(name, _network(record))


def defence_runs(results: Sequence[Result]) -> list[Result]:
    """Return the runs that belong among the defences: defended, of the defences' networks, or audited on pixels; not those that failed."""
    return [
        each for each in results
        if not each.failure
        and (is_defence(each) or audited(each))
    ]  # fmt: skip


def is_defence(result: Result) -> bool:
    """Return whether a run is of a defence, or of a network that came with one."""
    return Defence.of(result.record).name != UNDEFENDED or result.record.network["class"] in ("VGG", "WideResNet")


def is_plain(result: Result) -> bool:
    """Return whether a run is of the paper's kind: no defence, and its own gradient in training."""
    return not is_defence(result) and not result.record.config["model"].get("backward")


def audited(result: Result) -> Mapping[str, Any]:
    """Return the audit's answers of attacks on pixels; empty without."""
    found: Mapping[str, Any] = (result.record.audit or {}).get("answers", {}).get("image", {})
    return found


def accuracy_table(results: Sequence[Result]) -> Table:
    """Return a line for each run: clean, under FGSM and PGD-7 on pixels, and what the audit says."""
    shown = ["clean", "FGSM", "PGD-7"]
    header = ["defence", "network", "run", "trained", *(f"{name}, %" for name in shown), "audited", "quoted attack, %", "worst case, %",
              "believed?"]  # fmt: skip
    rows = []
    for result in results:
        attacks = [_attack(result, name, steps) for name, steps in (("FGSM", None), ("PGD", 7))]
        numbers = [result.clean, *(result.attacked(attack) if attack else None for attack in attacks)]
        answers, audit = audited(result), result.record.audit or {}
        rows.append([
            *words(Defence.of(result.record)), marked([result]), *words([_scale(result.record)]),
            *(accuracy_cell(Accuracy([number]) if number else None) for number in numbers),
            Cell(f"{len(audit['labels'])} images" if answers else "no"),
            *(_share(result, answers, level) for level in ("quoted", "worst")), Cell(answers["belief"] if answers else "-"),
        ])  # fmt: skip
    return Table("defences", header, rows, numbers=header[4:7])


def cost_table(results: Sequence[Result]) -> Table:
    """Return a line for each run: what training costs, where gradients are zero, how much the network fires."""
    header = ["defence", "network", "run", "on", "passes a batch", "s a batch", "of the undefended", "zeros at input, %",
              "at the first pool, %", "firing rate, %", "SynOps, million an image"]  # fmt: skip
    plain = {_alike(each.record): seconds for each in results
             if Defence.of(each.record).name == UNDEFENDED and (seconds := seconds_a_batch(each.record))}  # fmt: skip
    rows = []
    for result in results:
        record, defence = result.record, Defence.of(result.record)
        passes, seconds, twin = record.record.get("passes"), seconds_a_batch(record), plain.get(_alike(record))
        source = (f"run.json of {result.mark}",)
        rows.append([
            *words(defence), marked([result]), *words([record.record.get("device", "-")]),
            Cell(f"{passes['forwards']:g} + {passes['backwards']:g}", source) if passes else MISSING,
            Cell(f"{seconds:.3f}", source) if seconds else MISSING,
            Cell(f"{seconds / twin:.1f} x", source) if seconds and twin and defence.name != UNDEFENDED else MISSING,
            _number(_first(record, f"{GRAD_ZERO}/input/"), 100, 2), _number(_first(record, f"{GRAD_ZERO}/pool/"), 100, 2),
            _number(record.last(f"operations/{FIRING_RATE}") or _first(record, f"{SURROGATE_FIRING_RATE}/"), 100, 1),
            _number(record.last(f"operations/{SYNOPS}"), 1e-6, 1),
        ])  # fmt: skip
    return Table("what defences cost", header, rows, numbers=header[4:])


def quoted_table(results: Sequence[Result]) -> Table:
    """Return the rows that the paper quotes from others, with the runs that are the same defence on the same network and dataset."""
    columns = [f"{name} {part}, %" for name in ("FGSM", "PGD", "clean") for part in ("quoted", "here")]
    header = ["table", "dataset", "quoted row", "run", "trained here", *columns, "worst case of the audit, %"]
    rows = []
    quoted = [(place, row) for number in (1, 2) for place, row in enumerate(paper_rows(number), 1) if row.quoted]
    for place, row in quoted:
        runs: list[Result | None] = [*matching(row, results)]
        for result in runs or [None]:
            cells = words([row.table, DATASETS[row.dataset], row.quoted])
            cells += [marked([result]), Cell(f"{_network(result.record)}, {_scale(result.record)}")] if result else words(["-", "no run"])
            for column, (name, steps) in {"fgsm": ("FGSM", None), "pgd": ("PGD", 7), "clean": ("", None)}.items():
                attack = _attack(result, name, steps) if result and name else None
                number = None if result is None else result.attacked(attack) if attack else result.clean if column == "clean" else None
                cells.append(Cell(f"{row.accuracy[column]:.2f}", (f"paper_tables.yaml, table {row.table}, row {place}",)))
                cells.append(accuracy_cell(Accuracy([number]) if number else None))
            rows.append([*cells, _share(result, audited(result), "worst") if result else MISSING])
    return Table("quoted rows", header, rows, numbers=header[5:])


def matching(row: PaperRow, results: Sequence[Result]) -> list[Result]:
    """Return the runs that are a quoted row's defence on its kind of network, of any width, and on its dataset."""
    return [each for each in results if each.record.dataset == row.dataset and _is_like(row, each)]


SURVIVES = {
    "NOT VALID": "the measurement here is not valid: nothing is known of it",
    "MASKED": "a number like it would not survive: other gradients, or none, do better than the network's own",
    "WEAK ATTACK": "a number like it would not survive: stronger attacks take a significant part of it",
    "NO SIGN OF MASKING": "a number like it would survive, as far as this audit sees",
    "TOO FEW IMAGES": "too few images to say",
}
"""What an audit's answer says of a quoted number."""


def survival(results: Sequence[Result]) -> list[str]:
    """Return, for each defence that the paper quotes, whether its number would survive an audit, or that only a GPU can tell."""
    said = []
    rows = {row.quoted: row for number in (1, 2) for row in paper_rows(number) if row.quoted}
    for quoted, row in rows.items():
        # Whether gradients mislead is a matter of the defence: a dataset of the same kind will do.
        judged = [each for each in results if audited(each) and _is_like(row, each)]
        number = f"{quoted}: {row.accuracy['pgd']:.2f} % under PGD on {DATASETS[row.dataset]} is quoted; "
        if not judged:
            said.append(f"{number}without a GPU it cannot be known: nothing like it was audited here.")
        for each in judged:
            shares = {level: Proportion(**share) for level, share in audited(each)["accuracy"].items()}
            before = f"{counted(shares['quoted'])} under the attack that is quoted, " if "quoted" in shares else ""
            said.append(
                f"{number}here ({Defence.of(each.record).network}, {_scale(each.record)}, {each.record.dataset}) {before}at most "
                f"{counted(shares['worst'])} under all attacks: {audited(each)['belief']}, "
                f"{_survives(audited(each)['belief'], shares['worst'], row.accuracy['pgd'] / 100)}. "
                "At its authors' scale: sweep --grid defences, on a GPU."
            )
    return said


def _survives(belief: str, worst: Proportion, quoted: float) -> str:
    """Say what an audit's answer makes of a quoted share: not masked is not yet as robust as quoted."""
    if belief == "NO SIGN OF MASKING" and worst.high < quoted:
        return "but less is left here than is quoted, by more than the images' chance: a number like it would not survive"
    return SURVIVES[belief]


def told(name: str, results: Sequence[Result]) -> list[str]:
    """Return what the audits here say of a defence, a sentence a run; that there is none, where there is none."""
    said = [
        f"Audit here, {Defence.of(each.record).network}, {_scale(each.record)}: {audited(each)['under_attack']}; "
        f"{audited(each)['belief']}. {audited(each)['do']}"
        for each in results
        if Defence.of(each.record).name == name and audited(each)
    ]
    return said or ["Audit: none here."]


def _is_like(row: PaperRow, result: Result) -> bool:
    name, network = row.like
    defence = Defence.of(result.record)
    return defence.name == name and defence.network.startswith(network)


def figure(results: Sequence[Result]) -> Figure:
    """Draw accuracy under attacks on pixels against clean accuracy (%): arrows lead from what is quoted to the audit's worst case.

    Hollow is the audit's quoted attack, filled the worst case; grey is what the paper quotes, with a dotted line to the same defence here.
    """
    drawn = canvas(5.6)
    axes = drawn.subplots()
    for result in results:
        defence, answers = Defence.of(result.record), audited(result)
        colour, marker = COLOURS[defence.name], "o" if "VGG" in defence.network else "s" if "WRN" in defence.network else "^"
        clean, worst = (100 * answers["accuracy"][level]["value"] for level in ("clean", "worst"))
        quoted = 100 * answers["accuracy"].get("quoted", answers["accuracy"]["worst"])["value"]
        axes.annotate("", (clean, worst), (clean, quoted), arrowprops={"arrowstyle": "->", "color": colour, "linewidth": 1.2})
        axes.plot(clean, quoted, marker, color=colour, markerfacecolor="white", markersize=7)
        label = f"{defence.network}: {'undefended' if defence.name == UNDEFENDED else defence.name}"
        axes.plot(clean, worst, marker, color=colour, markersize=7, linestyle="none", label=label, gid="audited")
        for row in (row for number in (1, 2) for row in paper_rows(number) if row.quoted and result in matching(row, results)):
            axes.plot([row.accuracy["clean"], clean], [row.accuracy["pgd"], worst], ":", color=PAPER_COLOUR, linewidth=1)
    for row in {
        (row.accuracy["clean"], row.accuracy["pgd"]): row for number in (1, 2) for row in paper_rows(number) if row.quoted
    }.values():
        axes.plot(row.accuracy["clean"], row.accuracy["pgd"], "x", color=PAPER_COLOUR, linestyle="none", label="quoted by the paper (PGD)")
    axes.set_xlabel("clean accuracy (%)")
    axes.set_ylabel("accuracy under attacks on pixels, 8/255 (%)")
    axes.set_ylim(bottom=-2)
    drawn.suptitle("Defences: from the quoted attack (hollow) to the worst case of the audit (filled)")
    legend(drawn, labelled([axes]), 3)
    return drawn


def seconds_a_batch(record: Record) -> float | None:
    """Return the measured seconds of training a batch, its loading included; None where a part of the run did not note it."""
    parts = [*record.record.get("earlier", []), record.record]
    images, batch = record.images("train"), record.record.get("effective_batch_size") or 0
    if any("training_seconds" not in part for part in parts) or not images or not batch or not record.epochs:
        return None
    return sum(float(part["training_seconds"]) for part in parts) / (record.epochs * math.ceil(images / batch))


def _attack(result: Result, name: str, steps: int | None) -> AttackSettings | None:
    """Return the run's attack on pixels of this name and, where it has any, number of steps."""
    return next(
        (each for each in result.attacks
         if each.protocol == STRICT and each.name == name and (steps is None or dict(each.settings).get("steps") == steps)),
        None,
    )  # fmt: skip


def _share(result: Result, answers: Mapping[str, Any], level: str) -> Cell:
    share = answers["accuracy"].get(level) if answers else None
    if share is None:
        return MISSING
    source = f"audit/audit.json of {result.mark}, answers.image.accuracy.{level}"
    return Cell(Proportion(**share).percent, (source,))


def _network(record: Record) -> str:
    network = record.network
    kind = "ANN " if network.get("spiking") is False else ""
    if network["class"] == "VGG":
        convolutions = sum(isinstance(each, int) for each in network["channels"])
        return kind + VGGS.get(convolutions, f"VGG of {convolutions} convolutions")
    if network["class"] == "WideResNet":
        return f"{kind}WRN-{network['depth']}-{network['width']}"
    return f"{network_name(str(network['class']), int(network.get('depth', 0)))} {network.get('pool', '')}".strip()


def _scale(record: Record) -> str:
    """Return how long and on how much a run was trained, and how wide it is, as a defence's size is told."""
    return f"{record.epochs} epochs on {record.images('train') or 0:,} images, {_size(record)}"


def _size(record: Record) -> str:
    """Return time steps and width."""
    channels = [each for each in record.network.get("channels") or [] if isinstance(each, int)]
    width = f", {channels[0]} to {max(channels)} channels" if channels else ""
    return f"T={(record.data.get('encoder') or {}).get('num_steps', 10)}{width}"


def _alike(record: Record) -> tuple[Any, ...]:
    """Return what two runs must share so that the seconds of their batches can be compared."""
    return _network(record), _size(record), record.record.get("effective_batch_size"), record.record.get("device")


def _first(record: Record, prefix: str) -> Number | None:
    """Return the last value of the first name with a prefix, in the order of depth."""
    names = sorted(name for name in record.metrics if name.startswith(prefix))
    return record.last(names[0]) if names else None


def _number(number: Number | None, factor: float, digits: int) -> Cell:
    return MISSING if number is None else Cell(f"{factor * number.value:.{digits}f}", (number,))

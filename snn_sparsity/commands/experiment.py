"""``snn-sparsity experiment causal | trail``: put the paper's claims to the test on trained networks."""

import json
import os
from argparse import Namespace
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from lightning import LightningModule, Trainer
from tqdm import tqdm

from snn_sparsity.audit.harness import fingerprint
from snn_sparsity.audit.journal import Journal
from snn_sparsity.commands.one_line import OneLineParser
from snn_sparsity.commands.plot import save
from snn_sparsity.commands.train import TrainingCLI, quieten
from snn_sparsity.data import SpikeDataModule
from snn_sparsity.documents import page
from snn_sparsity.documents.blocks import Block, Picture
from snn_sparsity.experiments import causal
from snn_sparsity.experiments.attackers import ALPHA, ATTACKERS, CODEBOOK_STEPS, EPS, STEPS, Case, measure
from snn_sparsity.gradient_rules import PoolGradient
from snn_sparsity.probes.base import undisturbed
from snn_sparsity.runs.files import write_whole
from snn_sparsity.runs.records import Record, find_records
from snn_sparsity.training.checkpoint_files import read_checkpoint
from snn_sparsity.validation import InputError, require_number

CAUSAL = "causal.json"


def run(arguments: list[str]) -> int:
    """Run the command; ``arguments[0]`` is its name."""
    given = _parser().parse_args(arguments[1:])
    handler: Callable[[Namespace], int] = given.handler
    return handler(given)


def run_causal(given: Namespace) -> int:
    """Attack every network of a grid with sparse and dense gradients, or read what was measured, and write the document."""
    require_number("--samples", given.samples, at_least=2, whole=True)
    require_number("--batch_size", given.batch_size, at_least=1, whole=True)
    kept = given.out / "measured.json"
    content = _measured(given, kept) if given.runs else _read(given.out / CAUSAL)
    networks = [causal.Trained.read(each) for each in content["networks"]]
    _write(given.out, "Do zeros make a network robust?", list(causal.blocks(networks)))
    return 0


def _measured(given: Namespace, kept: Path) -> dict[str, Any]:
    records = find_records(given.runs)
    missing = [record.path for record in records if not (record.path / "best.ckpt").is_file()]
    if missing:
        raise InputError(f"{missing[0]} has no best.ckpt: train it first, or leave it out")
    quieten()
    settings = {
        "samples": given.samples,
        "batch_size": given.batch_size,
        "eps": EPS,
        "alpha": ALPHA,
        "steps": STEPS,
        "codebook": CODEBOOK_STEPS,
    }
    _make(given.out)
    journal = Journal(kept, settings)
    networks = []
    with tqdm(total=len(records), unit="network", disable=not given.progress) as bar:
        for record in records:
            bar.set_description_str(record.name)
            networks.append(_network(record, given, journal))
            bar.update()
    if len({each.pop("test_sha256") for each in networks}) != 1:
        raise InputError("these runs have different test images: only networks judged on the same images can be compared")
    content = {"schema": 1, "settings": settings | {"attackers": ATTACKERS}, "networks": networks}
    write_whole(given.out / CAUSAL, json.dumps(content, indent=1) + "\n")
    return content


def _network(record: Record, given: Namespace, journal: Journal) -> dict[str, Any]:
    """Return what is known and measured of a run's network; a network whose weights have changed is measured anew."""
    found: dict[str, Any] = {}
    arguments = ["attackers", "--ckpt_path", str(record.path / "best.ckpt"), "--trainer.enable_progress_bar", "false"]
    AttackersCLI([*arguments, *given.device], partial(_attack, given=given, journal=journal, found=found))
    model = record.config["model"]
    rule = model.get("backward")
    audit = record.audit or {}
    return {
        "name": record.name,
        "backward": _share(rule, record.path),
        "weight_decay": float(model["weight_decay"]),
        "seed": record.seed,
        "audit": {
            name: f"{100 * verdict['accuracy']['worst']['value']:.1f}"
            for name, verdict in audit.get("verdicts", {}).items()
            if verdict["accuracy"].get("worst")
        },
        **found,
    }


def _attack(model: LightningModule, data: SpikeDataModule, *, given: Namespace, journal: Journal, found: dict[str, Any]) -> None:
    test = data.split("test")
    if len(test.labels) < given.samples:
        raise InputError(f"--samples {given.samples}: the test set of this run has {len(test.labels)} images")
    case = Case(model, data.spike_encoder.to(model.device), test.images[: given.samples], test.labels[: given.samples], given.batch_size)
    images = type(test)(case.images, case.labels).checksum()
    weights = f"{fingerprint(model)[:16]} {images[:16]}"
    with undisturbed(model):
        found |= measure(case, lambda name, compute: journal.once(f"{weights} {name}", compute))
    found["test_sha256"] = images


def _share(rule: Mapping[str, Any] | None, path: Path) -> str:
    if rule is None:
        return "own"
    if not str(rule["class_path"]).endswith(f".{PoolGradient.__name__}"):
        raise InputError(f"{path} was trained under {rule['class_path']}: the experiment knows PoolGradient")
    return str((rule.get("init_args") or {}).get("share", PoolGradient().share))


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{file} cannot be read ({type(error).__name__}): give runs to measure, or --out with a {file.name} in it"
        ) from error
    if not isinstance(content, dict) or content.get("schema") != 1 or not content.get("networks"):
        raise InputError(f"{file} holds no such experiment")
    return content


class AttackersTrainer(Trainer):
    """A trainer that hands a network of a checkpoint to whoever wants it."""

    then: Callable[[LightningModule, SpikeDataModule], None]

    def attackers(self, model: LightningModule, datamodule: SpikeDataModule, ckpt_path: str | None = None) -> None:
        """Attack a trained network with every backward rule of its pooling.

        Args:
            model: The classifier.
            datamodule: Its data.
            ckpt_path: Checkpoint of the network; its settings come along.
        """
        assert ckpt_path is not None
        datamodule.prepare_data()
        datamodule.setup("fit")
        model.load_state_dict(read_checkpoint(ckpt_path)["state_dict"])
        model.to(self.strategy.root_device).eval()
        type(self).then(model, datamodule)


class AttackersCLI(TrainingCLI):
    """The command line of ``test``, for networks of which ``then`` measures something."""

    trainer_type = AttackersTrainer
    methods: ClassVar[Mapping[str, set[str]]] = {"attackers": {"model", "datamodule"}}

    def __init__(self, arguments: list[str], then: Callable[[LightningModule, SpikeDataModule], None]) -> None:
        AttackersTrainer.then = staticmethod(then)
        super().__init__(arguments)


def _write(out: Path, title: str, blocks: list[Block]) -> None:
    _make(out)
    stem = "index"
    save({block.name: block.figure for block in blocks if isinstance(block, Picture)}, out / "figures")
    for name, text in ((f"{stem}.html", page.html(title, blocks)), (f"{stem}.md", page.markdown(title, blocks, "figures"))):
        write_whole(out / name, text)
        print(out / name)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {folder} cannot be made: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise InputError(f"--out {folder} cannot be written to")


def _parser() -> OneLineParser:
    parser = OneLineParser(prog="snn-sparsity experiment", description="Put the paper's claims to the test.")
    which = parser.add_subparsers(required=True, metavar="EXPERIMENT")
    one = which.add_parser(
        "causal",
        help="do zeros make a network robust? attack the networks of sweep --grid causal with sparse and dense gradients",
        description="Attack every network with sparse and with dense gradients at its pool, on the same images, and compare in pairs. "
        "Stopped, the same command goes on. Without RUNS, write the document anew from what was measured.",
    )  # fmt: skip
    one.add_argument("runs", metavar="RUNS", type=Path, nargs="*", help="runs, or folders with runs somewhere below them")
    one.add_argument("--samples", type=int, default=1000, metavar="N", help="the first N test images (default: 1000)")
    one.add_argument("--batch_size", type=int, default=16, metavar="N", help="images attacked at a time (default: 16, the paper's)")
    one.add_argument("--out", type=Path, default=Path("causal"), metavar="DIR", help="causal.json, index.html, index.md (default: causal)")
    _shared(one)
    one.set_defaults(handler=run_causal)
    return parser


def _shared(parser: Any) -> None:
    parser.add_argument("--no_progress", dest="progress", action="store_false", help="show no bar")
    parser.add_argument(
        "--cpu", dest="device", action="store_const", const=["--trainer.accelerator", "cpu"], default=[], help="leave a GPU alone"
    )

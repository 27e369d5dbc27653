"""``snn-sparsity experiment causal | trail``: put the paper's claims to the test on trained networks."""

import json
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from snn_sparsity.audit.collect.harness import fingerprint
from snn_sparsity.audit.collect.journal import Journal
from snn_sparsity.commands.network import network_of
from snn_sparsity.commands.plot import save
from snn_sparsity.data.images import ImageSet
from snn_sparsity.data.recognition import originals
from snn_sparsity.documents import page
from snn_sparsity.documents.blocks import Block, Picture
from snn_sparsity.experiments.attackers import RESULTS, ModelUnderTest, measure
from snn_sparsity.experiments.trail.document import model_blocks, network_blocks
from snn_sparsity.gradient_rules import PoolGradient
from snn_sparsity.probes.undisturbed import undisturbed
from snn_sparsity.reproduction.attackers import ALPHA, ATTACKERS, CODEBOOK_STEPS, EPS, STEPS
from snn_sparsity.reproduction.causal.document import blocks
from snn_sparsity.reproduction.causal.trained import MEASURED, networks_of, read
from snn_sparsity.reproduction.paper import network_name
from snn_sparsity.runs.files import only_writer, write_whole
from snn_sparsity.runs.records import Record, find_records
from snn_sparsity.validation import InputError, require_number


def run(given: Namespace) -> int:
    """Run an experiment."""
    given.out = given.out or Path(given.name)
    given.samples = given.samples if given.samples is not None else 1000 if given.name == "causal" else 40
    require_number("--samples", given.samples, at_least=5, whole=True)
    require_number("--batch_size", given.batch_size, at_least=1, whole=True)
    require_number("--eval_batch_size", given.eval_batch_size, at_least=1, whole=True)
    if given.name == "trail":
        records = find_records(given.runs) if given.runs else []
        if len(records) > 1:
            raise InputError("experiment trail looks at one trained network: give one run, or none for the paper's model alone")
        shown = list(model_blocks())
        for record in records:
            case = _case(record, given)
            with undisturbed(case.classifier):  # type: ignore[arg-type]  # it is the LightningModule of the run
                shown += network_blocks(record.name, case, given.layer)
        return _write(given.out, "The sparsity trail: section 5 as experiments", shown)
    if given.runs:
        with only_writer(given.out):
            _measured(given)
    return _write(given.out, "Do zeros make a network robust?", list(blocks(networks_of(given.out / MEASURED))))


def _measured(given: Namespace) -> None:
    """Write what the runs' networks did, and what earlier experiments among the folders say of theirs."""
    parts = {path: _part(path / MEASURED) for path in given.runs if (path / MEASURED).is_file()}
    settings = {
        "samples": given.samples,
        "batch_size": given.batch_size,
        "eval_batch_size": given.eval_batch_size,
        "eps": EPS,
        "alpha": ALPHA,
        "steps": list(STEPS),
        "codebook": CODEBOOK_STEPS,
        "attackers": list(ATTACKERS),
    }
    networks = [network for part in parts.values() for network in part["networks"]]
    if runs := [path for path in given.runs if path not in parts]:
        records, journal = find_records(runs), Journal(given.out / "measured.json", settings)
        with tqdm(total=len(records) * RESULTS, unit="result", disable=None) as bar:
            for record in records:
                bar.set_description_str(record.name)
                networks.append(_network(record, given, journal, bar.update))
    else:
        settings = next(iter(parts.values()))["settings"]
    for path, part in parts.items():
        if other := [name for name, value in settings.items() if part["settings"].get(name) != value]:
            raise InputError(f"{path} was measured with another {', '.join(other)}: only what was measured alike can be compared")
    if len({each["images_sha256"] for each in networks}) != 1:
        raise InputError("these runs have different test images: only networks judged on the same images can be compared")
    if len({each["weights_sha256"] for each in networks}) != len(networks):
        raise InputError("the same network is given twice: in two runs or experiments its weights are equal; give one of them")
    content = {"schema": 1, "settings": settings, "networks": networks}
    write_whole(given.out / MEASURED, json.dumps(content, indent=1) + "\n")


def _part(file: Path) -> dict[str, Any]:
    """Return what an earlier experiment measured, of this version."""
    networks_of(file)
    part = read(file)
    hashed = all({"images_sha256", "weights_sha256"} <= each.keys() for each in part["networks"])
    if not hashed or not isinstance(part.get("settings"), dict):
        raise InputError(f"{file} is of another version: measure again")
    return part


def _network(record: Record, given: Namespace, journal: Journal, progress: Callable[[], object]) -> dict[str, Any]:
    """Return what is known and measured of a run's network; a network whose weights have changed is measured anew."""
    model = record.config["model"]
    rule = model.get("backward")
    if rule is not None and not str(rule["class_path"]).endswith(f".{PoolGradient.__name__}"):
        raise InputError(f"{record.path} was trained under {rule['class_path']}: the experiment knows PoolGradient")
    share = "own" if rule is None else str((rule.get("init_args") or {}).get("share", PoolGradient().share))
    case = _case(record, given)
    images = ImageSet(case.images, case.labels).checksum()
    weights = fingerprint(case.classifier)

    def once(name: str, compute: Callable[[], Any]) -> Any:
        result = journal.once(f"{weights[:16]} {images[:16]} {name}", compute)
        progress()
        return result

    with undisturbed(case.classifier):  # type: ignore[arg-type]  # it is the LightningModule of the run
        found = measure(case, once)
    judged = (record.audit or {}).get("answers", {})
    worst = {name: answers["accuracy"].get("worst") for name, answers in judged.items()}
    return {
        "name": record.name,
        "dataset": record.dataset,
        "network": network_name(*record.setting[1:3]),
        "epochs": record.epochs,
        "train_images": record.images("train"),
        "original_images": originals(ImageSet(case.images, case.labels), test=True),
        "backward": share,
        "weight_decay": float(model["weight_decay"]),
        "seed": record.seed,
        "audit": {name: f"{100 * left['value']:.1f} ({left['samples']} images)" for name, left in worst.items() if left},
        "images_sha256": images,
        "weights_sha256": weights,
        **found,
    }


def _case(record: Record, given: Namespace) -> ModelUnderTest:
    """Return the network of a run's best checkpoint with its first test images."""
    checkpoint = record.path / "best.ckpt"
    if not checkpoint.is_file():
        raise InputError(f"{checkpoint} is not there: train it first, or leave the run out")
    # The run's own bar would hide this one.
    more = ["--trainer.enable_progress_bar", "false"]
    more += ["--trainer.accelerator", "cpu"] if given.cpu else []
    more += ["--data.root", given.data_root] if given.data_root else []
    made = network_of(Namespace(config=[], more=more, ckpt_path=str(checkpoint), help_all=False))
    made.datamodule.prepare_data()
    made.datamodule.setup("test")
    test = made.datamodule.split("test")
    if len(test.labels) < given.samples:
        raise InputError(f"--samples {given.samples}: the test set of {record.path} has {len(test.labels)} images")
    if given.cuda_graphs and made.model.device.type != "cuda":
        raise InputError("--cuda_graphs needs a GPU: leave it out")
    encoder = made.datamodule.spike_encoder.to(made.model.device)
    images, labels = test.images[: given.samples], test.labels[: given.samples]
    return ModelUnderTest(made.model, encoder, images, labels, given.batch_size, given.eval_batch_size, given.cuda_graphs)


def _write(out: Path, title: str, blocks: Sequence[Block]) -> int:
    save({block.name: block.png for block in blocks if isinstance(block, Picture)}, out / "figures")
    for name, text in (("index.html", page.html(title, blocks)), ("index.md", page.markdown(title, blocks, "figures"))):
        write_whole(out / name, text)
        print(out / name)
    return 0

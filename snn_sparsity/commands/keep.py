"""``snn-sparsity keep``: copy what a run has to say, and its weights, to where it lasts."""

import json
import shutil
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from snn_sparsity.reproduction.card import card
from snn_sparsity.runs.files import write_whole
from snn_sparsity.runs.records import Record, find_records, read_record
from snn_sparsity.validation import InputError

RECORD = ("config.yaml", "run.json", "metrics.csv")
KEPT = (*RECORD, *(f"test/{name}" for name in RECORD), "audit/audit.json")
WRITERS: Mapping[str, Callable[[Any], str]] = {
    ".yaml": lambda content: yaml.safe_dump(content, sort_keys=False),
    ".json": lambda content: json.dumps(content, indent=1, ensure_ascii=False) + "\n",
}


def run(given: Namespace) -> int:
    """Run the command."""
    for record in find_records(given.runs):
        folder = given.out / record.dataset.replace(" ", "_") / record.name
        if folder.exists():
            raise InputError(f"{folder} is there already: remove it first, or give another --out")
        try:
            keep(record, folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        print(folder)
    return 0


def keep(record: Record, folder: Path) -> None:
    """Copy settings, record, numbers, test, audit and weights of a run, and write its card.

    ``metrics.csv`` stays as it is, byte by byte. In the others, absolute paths are cut to their last part: they mean nothing elsewhere.
    """
    for name in KEPT:
        source, target = record.path / name, folder / name
        # A test that was broken off has not been read, and is not kept.
        if not source.is_file() or (record.test is None and name.startswith("test/")):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix in WRITERS:
            read = json.loads if source.suffix == ".json" else yaml.safe_load
            write_whole(target, WRITERS[source.suffix](_portable(read(source.read_text(encoding="utf-8")))))
        else:
            shutil.copyfile(source, target)
    export_weights(record, folder / "weights.safetensors")
    write_whole(folder / "card.md", card(read_record(folder)))


def export_weights(record: Record, target: Path) -> None:
    """Write the network of a run's best checkpoint as safetensors, under the network's own names; nothing if it left no checkpoint."""
    checkpoint = record.path / "best.ckpt"
    if not checkpoint.is_file():
        return
    from safetensors.torch import save_file

    from snn_sparsity.training.checkpoint_files import read_checkpoint

    content = read_checkpoint(str(checkpoint), "keep:")
    weights = {name.removeprefix("network."): value for name, value in content["state_dict"].items() if name.startswith("network.")}
    save_file(weights, target, metadata={"run": record.name, "dataset": record.dataset, "epoch": str(content["epoch"])})


def _portable(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _portable(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_portable(part) for part in value]
    return Path(value).name if isinstance(value, str) and value.startswith("/") else value

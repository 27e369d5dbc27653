"""Runs as the report sees them: settings, record, numbers, test and audit of each directory."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from snn_sparsity.measure.names import accuracy_of
from snn_sparsity.runs.curves import Run, run_name, run_of
from snn_sparsity.runs.metrics import Metrics, Number, read_numbers
from snn_sparsity.validation import InputError

NO_OTHER_RUN = ("root", "url", "seed", "kernel")
"""Settings that change no number: where the data lie, and kernels with the same bits; the seed is told apart."""
PHASE_CODE = {"class_path": "snn_sparsity.encoders.PhaseEncoder", "init_args": {"num_steps": 10, "num_bits": 8, "weighted": False}}
"""The spike code of a run whose settings have null for it."""
SCHEDULE = (
    "max_epochs",
    "max_steps",
    "precision",
    "accumulate_grad_batches",
    "gradient_clip_val",
    "limit_train_batches",
    "limit_val_batches",
)
ATTACKED = "AdversarialAccuracy"


@dataclass(frozen=True)
class Record:
    """One run.

    Attributes:
        path: Its directory.
        config: ``config.yaml``.
        record: ``run.json``.
        metrics: ``metrics.csv``.
        test: The same of a test of the run's checkpoint on all test images, where there is one.
        audit: ``audit.json``, where there is one.
    """

    path: Path
    config: Mapping[str, Any]
    record: Mapping[str, Any]
    metrics: Metrics
    test: "Record | None" = None
    audit: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        """``<config>/seed_<n>/<k>``."""
        return run_name(self.path)

    @property
    def run(self) -> Run:
        """Its numbers without their lines, as figures take them."""
        return run_of(self.path, self.metrics)

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.config["seed_everything"])

    @property
    def network(self) -> Mapping[str, Any]:
        """Settings of the network, with its ``class``."""
        return _flat(self.config["model"]["network"])

    @property
    def data(self) -> Mapping[str, Any]:
        """Settings of the data, with its ``class``; null for a spike code is told as what it means."""
        found = _flat(self.config["data"])
        return {**found, "encoder": found.get("encoder") or _flat(PHASE_CODE)}

    @property
    def dataset(self) -> str:
        """``cifar10``, ``cifar100``, ``digits``, or what else it is.

        A folder of images is a dataset of the paper if its name begins with that of the dataset; an archive of arrays, if its content is.
        """
        if self.data["class"] == "CIFARDataModule":
            return str(self.data["name"])
        if self.data["class"] == "ImageFolderDataModule":
            folder = Path(str(self.data["root"])).name
            match = re.match(r"cifar-?(100|10)(?!\d)", folder.lower())
            return f"cifar{match[1]}" if match else f"folder {folder}"
        if self.data["class"] == "ArrayDataModule":
            return str(self.recognised.get("dataset", f"arrays {Path(str(self.data['path'])).stem}"))
        return str(self.data["class"]).removesuffix("DataModule").lower()

    @property
    def recognised(self) -> Mapping[str, Any]:
        """What the content of the images says of them: ``dataset``, ``images``, ``jpeg``, ``unknown``; empty where it says nothing."""
        found: Mapping[str, Any] = self.record.get("data", {}).get("recognised") or {}
        return found

    @property
    def original_pixels(self) -> bool:
        """Whether the images are the dataset's own, not files that were compressed or resized; see ``recognised`` for single ones."""
        return self.data["class"] != "ImageFolderDataModule"

    @property
    def setting(self) -> tuple[str, str, int, str]:
        """Dataset, network, depth and pooling: which row of a table it belongs to."""
        network = self.network
        return self.dataset, str(network["class"]), int(network.get("depth", 0)), str(network.get("pool", ""))

    @property
    def probes(self) -> Mapping[str, Mapping[str, Any]]:
        """Settings of the probes by name, each with its ``class``."""
        return {name: _flat(probe) for name, probe in (self.config.get("probes") or {}).items() if probe}

    @property
    def optimisation(self) -> dict[str, Any]:
        """What trains the network in place of the paper's Adam without a schedule; empty if nothing does."""
        given = {name: self.config.get(name) for name in ("optimizer", "lr_scheduler")}
        others = {name: _flat(value) for name, value in given.items() if value}
        return others | ({"lr_scheduler_interval": self.config.get("lr_scheduler_interval")} if "lr_scheduler" in others else {})

    @property
    def max_epochs(self) -> int:
        """Epochs asked for."""
        return int(self.config["trainer"]["max_epochs"])

    @property
    def epochs(self) -> int:
        """Epochs trained and judged."""
        return len(self.metrics.get(accuracy_of("val"), {}))

    def last(self, name: str) -> Number | None:
        """Return the value of a logged name at the last epoch that has one; None for a name that was never logged."""
        curve = self.metrics.get(name)
        return curve[max(curve)] if curve else None

    def images(self, split: str) -> int | None:
        """Return the number of images of ``train``, ``validation`` or ``test``; None where the record does not say."""
        count = self.record.get("data", {}).get("splits", {}).get(split, {}).get("images")
        return None if count is None else int(count)

    def key(self, *, pool: bool = True) -> str:
        """Return everything that makes a run what it is but its seed, as text; without the pooling, where it is to be compared."""
        network = {name: value for name, value in self.network.items() if pool or name != "pool"}
        model = {name: value for name, value in self.config["model"].items() if name != "network"}
        schedule = {name: self.config["trainer"].get(name) for name in SCHEDULE} | self.optimisation
        attacks = {name: probe for name, probe in self.probes.items() if probe["class"] == ATTACKED}
        settings = _settled([network, model, self.data, self.dataset, schedule, attacks])
        return json.dumps(settings, sort_keys=True, default=str)


def find_records(paths: Sequence[Path]) -> list[Record]:
    """Return the runs in these folders, or below them, in the order of their paths.

    Raises:
        InputError: If one of the folders holds no run, a run cannot be read, or two runs are the same.
    """
    folders = {folder.resolve(): folder for path in paths for folder in runs_below(path)}
    records = [read_record(folder) for folder in sorted(folders.values(), key=lambda folder: folder.as_posix())]
    seen: dict[tuple[str, int], Record] = {}
    for record in records:
        twin = seen.setdefault((record.key(), record.seed), record)
        if twin is not record:
            raise InputError(f"{twin.path} and {record.path} are the same run: all settings and the seed are equal; give one of them")
    return records


def runs_below(path: Path) -> list[Path]:
    """Return the directories of the runs in a folder, or below it.

    Raises:
        InputError: If it is no folder, or holds none.
    """
    if not os.path.isdir(path):
        raise InputError(f"no runs found in {path}: there is no such folder")
    if (path / "metrics.csv").is_file() and not (path / "config.yaml").is_file():
        raise InputError(f"{path} is no run: there is no {path / 'config.yaml'}")
    # A test or validation of a run lies in it, and is no run of its own.
    below = [file.parent for file in path.rglob("metrics.csv") if _complete(file.parent) and not _complete(file.parent.parent)]
    if not below:
        raise InputError(f"no runs found in {path}: give a folder such as runs/demo/seed_3407/0, or one that holds such folders")
    return below


def read_record(path: Path) -> Record:
    """Read a run's directory.

    Raises:
        InputError: Naming the file that is missing or cannot be read.
    """
    config = _mapping(path / "config.yaml")
    for part in ("model", "data", "trainer", "seed_everything"):
        if part not in config:
            raise InputError(f"{path} is no run: {path / 'config.yaml'} has no {part!r}")
    record = _mapping(path / "run.json") if (path / "run.json").is_file() else {}
    test = read_record(path / "test") if _complete(path / "test") else None
    audit = path / "audit" / "audit.json"
    found = Record(path, config, record, read_numbers(path / "metrics.csv"), test, _mapping(audit) if audit.is_file() else None)
    try:
        found.key(), found.setting, found.seed, found.max_epochs, found.images("test")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is no run: its config.yaml or run.json is not as fit writes it ({error})") from error
    return found


def _complete(folder: Path) -> bool:
    return (folder / "metrics.csv").is_file() and (folder / "config.yaml").is_file()


def _settled(value: Any) -> Any:
    """Return settings without those that make no other run."""
    if isinstance(value, Mapping):
        return {name: _settled(part) for name, part in value.items() if name not in NO_OTHER_RUN}
    return [_settled(part) for part in value] if isinstance(value, list) else value


def _flat(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``class_path`` and ``init_args``, at any depth, as one mapping with the class's last name."""
    if "class_path" not in given:
        return dict(given)
    arguments = {name: _flat(value) if isinstance(value, Mapping) else value for name, value in (given.get("init_args") or {}).items()}
    return {"class": str(given["class_path"]).rsplit(".", 1)[-1], **arguments}


def _mapping(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
        content = json.loads(text) if file.suffix == ".json" else yaml.load(text, Loader=_LOADER)
        # YAML can hold itself, which JSON refuses; whoever walks through it would not come to an end.
        json.dumps(content, skipkeys=True, default=str)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"{file} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise InputError(f"{file} is no mapping of names")
    return content


# YAML in C, where there is such a thing, is ten times as fast.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

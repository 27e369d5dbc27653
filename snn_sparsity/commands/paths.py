"""Files and folders that a command line names and that must be there."""

import os
from argparse import Namespace
from pathlib import Path
from typing import Any

from snn_sparsity.reproduction.causal.trained import MEASURED
from snn_sparsity.runs.curves import metrics_of
from snn_sparsity.runs.records import runs_below
from snn_sparsity.validation import InputError, require_train_and_test

NEEDS_A_CHECKPOINT = ("validate", "test", "predict", "audit")


def check_paths(given: Namespace) -> None:
    """Raise InputError for the first that is missing, or cannot be."""
    _check_names(given)
    for path in getattr(given, "runs", ()):
        # A folder with it is an experiment that was measured before.
        if given.command != "experiment" or not os.path.isfile(path / MEASURED):
            runs_below(path)
    for path in filter(None, (getattr(given, "run", None), getattr(given, "other", None))):
        metrics_of(path)
    if given.command == "audit":
        _check_audits(given.compare, given.judge)
    instead = any(getattr(given, option, None) is not None for option in ("print_config", "weights", "compare", "judge"))
    if given.command in NEEDS_A_CHECKPOINT and given.ckpt_path is None and not instead:
        raise InputError(f"{given.command} needs --ckpt_path: the checkpoint of a network{_newest(given.config)}")
    for option in ("ckpt_path", "transfer_from"):
        path = getattr(given, option, None)
        # Unlike a Path, it takes any name, however long.
        if path is not None and not os.path.isfile(path):
            raise InputError(f"--{option} {path} is no file{_newest(given.config) if option == 'ckpt_path' else ''}")
    if (images := getattr(given, "images", None)) is not None and not os.path.isdir(images):
        raise InputError(f"--images {images}: no images there, for it is no folder")


def _check_names(given: Namespace) -> None:
    """Refuse a zero byte, which no name of a file can hold: a shell cannot give one, a call of ``main`` can."""
    for value in vars(given).values():
        for word in map(str, value if isinstance(value, list) else [value]):
            if "\0" in word:
                raise InputError(f"{word!r} is not allowed: no name can hold a zero byte")


def _check_audits(compare: list[Path] | None, judge: list[Path] | None) -> None:
    if compare is not None and len(compare) < 2:
        raise InputError("audit --compare needs at least two audit.json files")
    for option, paths in (("compare", compare), ("judge", judge)):
        for path in paths or ():
            if not os.path.isfile(path):
                raise InputError(f"--{option} {path} is no file: give an audit.json")
            if option == "judge" and path.name != "audit.json":
                raise InputError(f"--judge {path} is not called audit.json: the audit of that name beside it would be overwritten")


def check_data(settings: Any) -> None:
    """Raise InputError if a datamodule of ours that reads one's own images is not told where they are, or they are not there."""
    data = settings if isinstance(settings, dict) else {"class_path": settings}
    kind = str(data.get("class_path")).rsplit(".", 1)[-1]
    for reader, option in (("ImageFolderDataModule", "root"), ("ArrayDataModule", "path")):
        if kind == reader and not data.get(option):
            raise InputError(f"--data {kind} needs --data.{option}: where the images are")
    if kind == "ImageFolderDataModule":
        require_train_and_test(str(data["root"]))
    if kind == "ArrayDataModule" and not os.path.isfile(str(data["path"])):
        raise InputError(f"data.path={data['path']}: there is no such file")


def _newest(configs: list[str]) -> str:
    """Return where the newest best checkpoint of these configurations is, as advice, or nothing."""
    name = "+".join(Path(config).stem for config in configs) or "*"
    found = sorted(Path("runs").rglob(f"{name}/seed_*/*/best.ckpt"), key=os.path.getmtime)
    return f"; the newest is {found[-1]}" if found else ""

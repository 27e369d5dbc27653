"""What can be told of a command line before the imports that take seconds: files that are missing, names that nobody knows."""

import os
import re
from argparse import Namespace
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from snn_sparsity.commands.signatures import class_in, kinds_of, parameters_of, signatures, trainer_settings
from snn_sparsity.configs import shipped
from snn_sparsity.validation import InputError, did_you_mean

NEEDS_A_CHECKPOINT = ("validate", "test", "predict", "audit")
ROOTS = ("best", "checkpoints", "ckpt_path", "config", "data", "help", "lr_scheduler", "lr_scheduler_interval", "model", "optimizer",
         "print_config", "probes", "resume", "seed_everything", "trainer", "verbose", "weights_only")  # fmt: skip
"""First parts of the names of all settings."""
NO_OPTIONS = {"command", "module", "more", "takes_more"}
FIXED = {"class_path", "init_args", "dict_kwargs"}

Settings = dict[str, Any]


def check(given: Namespace) -> None:
    """Raise InputError for the first mistake that can be seen so."""
    if not given.takes_more or given.help_all or getattr(given, "compare", None):
        return
    _check_files(given)
    try:
        settings: Settings = {}
        for source, tree in _sources(given.config, given.more):
            _merge(settings, tree)
            for name in tree.keys() - set(ROOTS):
                raise InputError(f"{source}--{name}: unknown setting{did_you_mean(name, {*ROOTS, *vars(given)} - NO_OPTIONS)}")
            _check_tree(tree, settings, source)
    except RecursionError as error:
        raise InputError("a configuration that holds itself is not allowed") from error


def as_given(message: str, configs: list[str], more: list[str]) -> str:
    """Return a complaint about ``--probes.attack.eps`` with the name of the probe, which the parser leaves out.

    Example:
        >>> as_given("--probes.attack.eps: no", [], ["--probes.mine", "AdversarialAccuracy", "--probes.mine.attack.eps", "no"])
        '--probes.mine.attack.eps: no'
    """
    settings: Settings = {}
    for _, tree in _sources(configs, more):
        _merge(settings, tree)
    probes = settings.get("probes")
    found = re.match(r"--probes\.([\w.]+)(?=:)", message)
    if not found or not isinstance(probes, dict) or found[1].partition(".")[0] in probes:
        return message
    path = found[1].replace(".init_args", "").split(".")
    values = {name: value for name, its in reversed(probes.items()) if (value := _at(its, path)) is not None}
    said = re.search(r"Got value: (.*)$|: '([^']*)' is not", message)
    text = said and (said[1] or said[2])
    name = next((name for name, value in values.items() if str(value) == text), next(iter(values), None))
    return message if name is None else f"--probes.{name}.{message.removeprefix('--probes.')}"


def _at(tree: Any, path: list[str]) -> Any:
    for part in path:
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


def _check_files(given: Namespace) -> None:
    instead = getattr(given, "print_config", None) or getattr(given, "weights", None)
    if given.ckpt_path is None and given.command in NEEDS_A_CHECKPOINT and instead is None:
        raise InputError(f"{given.command} needs --ckpt_path: the checkpoint of a network{_newest(given.config)}")
    for option in ("ckpt_path", "transfer_from"):
        path = getattr(given, option, None)
        # Unlike a Path, it takes any name: too long, or with a zero in it.
        if path is not None and not os.path.isfile(path):
            raise InputError(f"--{option} {path} is no file{_newest(given.config) if option == 'ckpt_path' else ''}")
    images = getattr(given, "images", None)
    if images is not None and not os.path.isdir(images):
        raise InputError(f"--images {images}: no images there, for it is no folder")


def _newest(configs: list[str]) -> str:
    """Return where the newest best checkpoint of these configurations is, as advice, or nothing."""
    name = "+".join(Path(config).stem for config in configs) or "*"
    found = sorted(Path("runs").rglob(f"{name}/seed_*/*/best.ckpt"), key=os.path.getmtime)
    return f"; the newest is {found[-1]}" if found else ""


def _sources(configs: list[str], more: list[str]) -> Iterator[tuple[str, Settings]]:
    """Yield what is given, from what loses to what wins, with what to put before a complaint."""
    yield "", _read(str(shipped.PAPER))
    for config in configs:
        path = shipped.resolve(config)
        yield f"--config {path}: ", _read(path)
    for name, value in options(more):
        # Settings of the attack that an audit is asked about are no network's.
        if not name.startswith("claim."):
            yield "", _nested(name, value)


def options(words: list[str]) -> Iterator[tuple[str, Any]]:
    """Yield name and value of each option, the value as YAML reads it.

    Example:
        >>> list(options(["--model.lr=.1", "--data.flip", "false", "--trainer.callbacks+", "Figures"]))
        [('model.lr', 0.1), ('data.flip', False), ('trainer.callbacks', 'Figures')]
    """
    for place, word in enumerate(words):
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            following = words[place + 1] if place + 1 < len(words) and not words[place + 1].startswith("--") else ""
            text = value if equals else following
            try:
                yield name.removesuffix("+"), yaml.safe_load(text)
            except (yaml.YAMLError, ValueError):
                yield name.removesuffix("+"), text


def _read(path: str) -> Settings:
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeError, yaml.YAMLError, ValueError) as error:
        raise InputError(f"--config {path}: {error}") from error
    return _flat(content) if isinstance(content, dict) else {}


def _nested(name: str, value: Any) -> Settings:
    tree: Any = value
    for part in reversed(name.split(".")):
        tree = {part: tree}
    flat: Settings = _flat(tree)
    return flat


def _flat(value: Any) -> Any:
    """Return nested settings without the level ``init_args``, which may be left out."""
    if not isinstance(value, dict):
        return value
    inside = value.get("init_args")
    parts = {**{name: part for name, part in value.items() if name != "init_args"}, **(inside if isinstance(inside, dict) else {})}
    return {str(name).removesuffix("+"): _flat(part) for name, part in parts.items()}


def _merge(settings: Settings, tree: Settings) -> None:
    for name, value in tree.items():
        before = settings.get(name)
        if isinstance(value, dict) and isinstance(before, dict):
            if value.get("class_path", before.get("class_path")) != before.get("class_path"):
                before.clear()
            _merge(before, value)
        elif isinstance(value, dict) and isinstance(before, str):
            settings[name] = {"class_path": before, **value}
        else:
            settings[name] = dict(value) if isinstance(value, dict) else value


def _check_tree(tree: Settings, settings: Settings, source: str) -> None:
    """Refuse the names in a tree that nobody knows, where the settings so far say of which class each is."""
    try:
        _check_names(tree, settings)
    except InputError as error:
        raise InputError(f"{source}{error}") from error


def _check_names(tree: Settings, settings: Settings) -> None:
    for name, value in tree.items():
        if name == "trainer" and isinstance(value, Mapping):
            _require_known("trainer", "the trainer", value, trainer_settings())
        elif name == "model" and isinstance(value, Mapping):
            _check_class("model", value, {"class_path": "SpikingClassifier", **settings["model"]}, "SpikingClassifier")
        elif name == "data":
            _check_class("data", value, settings["data"], "SpikeDataModule")
        elif name == "probes" and isinstance(value, Mapping):
            for probe, its in value.items():
                _check_class(f"probes.{probe}", its, settings["probes"][probe], "Probe")


def _check_class(path: str, value: Any, settings: Any, base: str) -> None:
    """Refuse the name of a class that is not there, and settings that it has not."""
    class_path = value if isinstance(value, str) else settings.get("class_path") if isinstance(settings, dict) else settings
    if not isinstance(class_path, str) or not _is_ours(path, class_path, base):
        return
    name = class_path.rsplit(".", 1)[-1]
    known = parameters_of(name)
    if known is None or not isinstance(value, Mapping):
        return
    _require_known(path, name, value, known)
    for key, part in value.items():
        inside = class_in(known.get(key, ""))
        if inside is not None:
            its = settings.get(key) if isinstance(settings, dict) else part
            plain = not kinds_of(inside) and inside != "Module"
            _check_class(f"{path}.{key}", part, {"class_path": inside, **its} if plain and isinstance(its, dict) else its, inside)


def _is_ours(path: str, class_path: str, base: str) -> bool:
    """Tell whether a class is one of ours; refuse one that cannot be."""
    package, _, name = class_path.rpartition(".")
    known = _networks() if base == "Module" else [base, *kinds_of(base)]
    if package and not class_path.startswith("snn_sparsity."):
        if not class_path.replace(".", "").replace("_", "").isalnum() or _is_there(package.partition(".")[0]):
            return False
        raise InputError(f"--{path}: {class_path}: there is no module {package.partition('.')[0]}")
    if name in known:
        return True
    meant = did_you_mean(name, known)
    # Any module may be a network, and any class that was imported may be given by its last name.
    if meant and (base == "Module" or package or name.isidentifier()):
        raise InputError(f"--{path}: there is no {class_path}{meant}")
    return False


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _networks() -> list[str]:
    return [name for name in signatures() if "num_classes" in (parameters_of(name) or {})]


def _require_known(path: str, owner: str, given: Mapping[str, Any], known: Mapping[str, str]) -> None:
    for key in given.keys() - known.keys() - FIXED if known else ():
        raise InputError(f"--{path}.{key}: {owner} has no such setting{did_you_mean(key, known)}")

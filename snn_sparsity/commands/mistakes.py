"""What can be told of a command line before the imports that take seconds: names that nobody knows."""

import os
from argparse import Namespace
from collections.abc import Mapping
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

from snn_sparsity.commands.paths import check_data, check_paths
from snn_sparsity.commands.settings import Settings, given_settings, nested, options
from snn_sparsity.commands.signatures import class_in, kinds_of, lightning_callbacks, parameters_of, signatures, trainer_settings
from snn_sparsity.configs import shipped
from snn_sparsity.validation import InputError, did_you_mean

ROOTS = ("best", "checkpoints", "ckpt_path", "config", "data", "help", "lr_scheduler", "lr_scheduler_interval", "model", "optimizer",
         "print_config", "probes", "resume", "seed_everything", "trainer", "verbose", "weights_only")  # fmt: skip
"""First parts of the names of all settings."""
NO_OPTIONS = {"command", "module", "more", "takes_more"}
FIXED = {"class_path", "init_args", "dict_kwargs"}
OURS = ("snn_sparsity.", "lightning.pytorch.callbacks.")
"""Packages whose classes are known."""


def check(given: Namespace) -> None:
    """Raise InputError for the first mistake that can be seen so."""
    if given.takes_more and given.help_all:
        return
    check_paths(given)
    if not given.takes_more or getattr(given, "compare", None) or getattr(given, "judge", None):
        return
    _check_words(given.command, given.more)
    _check_claim(getattr(given, "claim", None), given.more)
    settings: Settings = {}
    try:
        for source, here, settings in given_settings(given.config, given.more, of_checkpoint=given.ckpt_path is not None):
            for name in here.keys() - set(ROOTS):
                raise InputError(f"{source}--{name}: unknown setting{did_you_mean(name, {*ROOTS, *vars(given)} - NO_OPTIONS)}")
            try:
                _check_names(here, settings)
            except InputError as error:
                raise InputError(f"{source}{error}") from error
    except RecursionError as error:
        raise InputError("a configuration that holds itself is not allowed") from error
    if given.ckpt_path is None and getattr(given, "print_config", None) is None:
        check_data(settings.get("data"))


def _check_words(command: str, words: list[str]) -> None:
    """Refuse a word that is neither an option nor the value of one."""
    for before, word in pairwise(["", *words]):
        if not word.startswith("--") and (not before.startswith("--") or "=" in before):
            is_config = os.path.isfile(word) or Path(word).stem in {Path(name).stem for name in shipped.names()}
            meant = f" (did you mean --config {word}?)" if is_config else ""
            raise InputError(f"{command}: {word} is neither an option nor the value of one{meant}")


def _check_claim(claim: str | None, words: list[str]) -> None:
    """Refuse names in the attack that an audit is asked about."""
    _check_class("claim", claim, claim, "Attack")
    for name, value in options(words) if claim is not None else ():
        if name.startswith("claim."):
            _check_class("claim", nested(name, value)["claim"], {"class_path": claim}, "Attack")


def _check_names(here: Settings, settings: Settings) -> None:
    """Refuse the names in some settings that nobody knows, where the settings so far say of which class each is."""
    for name in ("trainer", "model"):
        if not isinstance(here.get(name) or {}, Mapping | str):
            raise InputError(f"--{name}: settings by name are expected, not {here[name]!r:.80}")
    trainer, model, probes = (value if isinstance(value := here.get(name), Mapping) else {} for name in ("trainer", "model", "probes"))
    _require_known("trainer", "the trainer", trainer, trainer_settings())
    callbacks = trainer.get("callbacks")
    for callback in callbacks if isinstance(callbacks, list) else [callbacks]:
        _check_class("trainer.callbacks", callback, callback, "Callback")
    given = settings.get("model")
    _check_class("model", model, {"class_path": "SpikingClassifier", **(given if isinstance(given, Mapping) else {})}, "SpikingClassifier")
    _check_class("data", here.get("data"), settings.get("data"), "SpikeDataModule")
    for name, probe in probes.items():
        its = settings["probes"][name]
        if isinstance(its, dict) and "class_path" not in its:
            others = ", ".join(sorted(settings["probes"].keys() - {name})) or "none"
            raise InputError(
                f"--probes.{name}: there is no such probe to change (there are: {others}); give its class, --probes.{name} CLASS"
            )
        _check_class(f"probes.{name}", probe, its, "Probe")


def _check_class(path: str, value: Any, settings: Any, base: str) -> None:
    """Refuse the name of a class that is not there, and settings that it has not."""
    class_path = value if isinstance(value, str) else settings.get("class_path") if isinstance(settings, dict) else settings
    if not isinstance(class_path, str) or not _is_ours(path, class_path, base):
        return
    name = class_path.rsplit(".", 1)[-1]
    known = parameters_of(name, lightning_callbacks() if base == "Callback" else {})
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
    """Tell whether a class is one that is known here; refuse one that cannot be."""
    package, _, name = class_path.rpartition(".")
    if base == "Module":
        known = [network for network in signatures() if "num_classes" in (parameters_of(network) or {})]
    else:
        known = [base, *kinds_of(base), *(lightning_callbacks() if base == "Callback" else ())]
    if package and not class_path.startswith(OURS):
        top = package.partition(".")[0]
        try:
            is_there = find_spec(top) is not None
        except (ImportError, ValueError):
            is_there = False
        if class_path.replace(".", "").replace("_", "").isalnum() and not is_there:
            raise InputError(f"--{path}: {class_path}: there is no module {top}")
        return False
    if name in known:
        return True
    meant = did_you_mean(name, known)
    # Any module may be a network, and any class that was imported may be given by its last name.
    if meant and (base == "Module" or package or name.isidentifier()):
        raise InputError(f"--{path}: there is no {class_path}{meant}")
    return False


def _require_known(path: str, owner: str, given: Mapping[str, Any], known: Mapping[str, str]) -> None:
    for key in given.keys() - known.keys() - FIXED if known else ():
        raise InputError(f"--{path}.{key}: {owner} has no such setting{did_you_mean(key, known)}")

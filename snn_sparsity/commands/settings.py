"""What a command line and its configurations set, as nested settings; nothing that takes time is imported to read them."""

import re
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import yaml

from snn_sparsity.configs import shipped
from snn_sparsity.validation import InputError

Settings = dict[str, Any]
"""Nested, without the level ``init_args``, which may be left out."""


def given_settings(configs: list[str], more: list[str], *, of_checkpoint: bool = False) -> Iterator[tuple[str, Settings, Settings]]:
    """Yield what each configuration and option sets, from what loses to what wins.

    Args:
        configs: Configurations, by path, name or stem.
        more: Options and their values.
        of_checkpoint: Whether model and data are by default those of a checkpoint, which is not read here, not the paper's.

    Yields:
        What to put before a complaint, what is set here, and what is set so far. A block ``probes`` of a configuration keeps no probe of
        earlier ones but those that it names.
    """
    settings: Settings = {}
    paper = str(shipped.PAPER)
    for path in [paper, *map(shipped.resolve, configs)]:
        try:
            content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeError, yaml.YAMLError, ValueError) as error:
            raise InputError(f"--config {path}: {error}") from error
        here: Settings = without_init_args(content) if isinstance(content, dict) else {}
        if of_checkpoint and path == paper:
            del here["model"], here["data"]
        if isinstance(block := here.get("probes"), dict) and isinstance(before := settings.get("probes"), dict):
            settings["probes"] = {name: before[name] for name in before.keys() & block.keys()}
        _merge(settings, here)
        yield f"--config {path}: ", here, settings
    for name, value in options(more):
        # Settings of the attack that an audit is asked about are no network's.
        if not name.startswith("claim."):
            here = nested(name, value)
            _merge(settings, here)
            yield "", here, settings


def as_given(message: str, configs: list[str], more: list[str]) -> str:
    """Return a complaint about ``--probes.attack.eps`` with the name of the probe, which the parser leaves out.

    Example:
        >>> as_given("--probes.attack.eps: no", [], ["--probes.mine", "AdversarialAccuracy", "--probes.mine.attack.eps", "no"])
        '--probes.mine.attack.eps: no'
    """
    *_, (_, _, settings) = given_settings(configs, more)
    probes = settings.get("probes")
    found = re.match(r"--probes\.([\w.]+)(?=:)", message)
    if not found or not isinstance(probes, dict) or found[1].partition(".")[0] in probes:
        return message
    path = found[1].replace(".init_args", "").split(".")
    at = {name: reduce(lambda tree, part: tree.get(part) if isinstance(tree, dict) else None, path, its) for name, its in probes.items()}
    values = {name: value for name, value in reversed(at.items()) if value is not None}
    said = re.search(r"Got value: (.*)$|: '([^']*)' is not", message)
    text = said and (said[1] or said[2])
    name = next((name for name, value in values.items() if str(value) == text), next(iter(values), None))
    return message if name is None else f"--probes.{name}.{message.removeprefix('--probes.')}"


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


def nested(name: str, value: Any) -> Settings:
    """Return the settings that one option is.

    Example:
        >>> nested("claim.steps", 7)
        {'claim': {'steps': 7}}
    """
    settings: Settings = without_init_args(reduce(lambda inner, part: {part: inner}, reversed(name.split(".")), value))
    return settings


def without_init_args(value: Any) -> Any:
    """Return nested settings without the level ``init_args``.

    Example:
        >>> without_init_args({"class_path": "PGD", "init_args": {"steps": 7}})
        {'class_path': 'PGD', 'steps': 7}
    """
    if isinstance(value, list):
        return [without_init_args(part) for part in value]
    if not isinstance(value, dict):
        return value
    inside = value.get("init_args")
    parts = {**{name: part for name, part in value.items() if name != "init_args"}, **(inside if isinstance(inside, dict) else {})}
    return {str(name).removesuffix("+"): without_init_args(part) for name, part in parts.items()}


def _merge(settings: Settings, here: Settings) -> None:
    for name, value in here.items():
        before = settings.get(name)
        if isinstance(value, dict) and isinstance(before, dict):
            if value.get("class_path", before.get("class_path")) != before.get("class_path"):
                before.clear()
            _merge(before, value)
        elif isinstance(value, dict) and isinstance(before, str):
            settings[name] = {"class_path": before, **value}
        else:
            settings[name] = dict(value) if isinstance(value, dict) else value

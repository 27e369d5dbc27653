"""What settings our classes have, read from their source: importing them to ask would take seconds."""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

import snn_sparsity

ROOMS = ("attacks", "data", "encoders", "gradient_rules", "networks", "objectives", "probes", "training", "classifier.py")
"""Where classes are that a setting may name."""


@dataclass(frozen=True)
class Signature:
    """A class as its source says.

    Attributes:
        bases: Names of its base classes.
        parameters: What its constructor takes by itself, with the annotation of each.
        open: Whether it takes anything else, too.
        own: Whether the constructor is its own, so that what its bases take does not count.
    """

    bases: tuple[str, ...]
    parameters: dict[str, str]
    open: bool
    own: bool


@cache
def signatures() -> dict[str, Signature]:
    """Return the classes of this package by name."""
    root = Path(snn_sparsity.__file__).parent
    files = [file for room in ROOMS for file in ([root / room] if room.endswith(".py") else sorted((root / room).glob("*.py")))]
    return {name: found for file in files for name, found in _classes(file)}


def parameters_of(name: str, others: Mapping[str, Signature] = MappingProxyType({})) -> dict[str, str] | None:
    """Return what a class, of ours or one of others, takes, with annotations; None for one that is unknown, or takes anything.

    Example:
        >>> sorted(parameters_of("FGSM"))
        ['eps', 'loss', 'random_start']
    """
    found = signatures().get(name) or others.get(name)
    if found is None or found.open:
        return None
    inherited: dict[str, str] = {}
    for base in () if found.own else found.bases:
        inherited |= parameters_of(base, others) or {}
    return inherited | found.parameters


def kinds_of(base: str) -> list[str]:
    """Return the names of the classes below a base class, the base left out.

    Example:
        >>> "PhaseEncoder" in kinds_of("Encoder")
        True
    """
    children = [name for name, found in signatures().items() if base in found.bases]
    return [name for child in children for name in (child, *kinds_of(child))]


def class_in(annotation: str) -> str | None:
    """Return the class of ours that an annotation names, if it is one or nothing.

    Example:
        >>> class_in("Encoder | None"), class_in("dict[str, Attack]"), class_in("nn.Module")
        ('Encoder', None, 'Module')
    """
    words = [word for word in re.split(r"\s*\|\s*", annotation) if word != "None"]
    name = words[0].rsplit(".", 1)[-1] if len(words) == 1 else ""
    return name if name in signatures() or name == "Module" else None


@cache
def trainer_settings() -> dict[str, str]:
    """Return what Lightning's Trainer takes; nothing where its source is not where it was."""
    return next((found.parameters for name, found in _of_lightning("trainer/trainer.py") if name == "Trainer"), {})


@cache
def lightning_callbacks() -> dict[str, Signature]:
    """Return the public classes in Lightning's room of callbacks by name; nothing where it is not where it was."""
    return {name: found for name, found in _of_lightning("callbacks/**/*.py") if not name.startswith("_")}


def _of_lightning(pattern: str) -> Iterator[tuple[str, Signature]]:
    found = find_spec("lightning")
    for place in (found.submodule_search_locations or []) if found else []:
        for file in sorted(Path(place, "pytorch").glob(pattern)):
            yield from _classes(file)


def _classes(file: Path) -> Iterator[tuple[str, Signature]]:
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.ClassDef):
            continue
        constructor = next((part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"), None)
        bases = tuple(ast.unparse(base).rsplit(".", 1)[-1] for base in node.bases)
        if constructor is not None:
            given = constructor.args
            taken = {each.arg: ast.unparse(each.annotation) if each.annotation else "" for each in (*given.args[1:], *given.kwonlyargs)}
            yield node.name, Signature(bases, taken, given.kwarg is not None, True)
            continue
        # The constructor of a dataclass takes its fields.
        made_of = node.body if any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list) else []
        fields = [part for part in made_of if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)]
        kinds = {ast.unparse(part.target): ast.unparse(part.annotation) for part in fields if "init=False" not in ast.unparse(part)}
        taken = {name: kind for name, kind in kinds.items() if not kind.startswith("ClassVar")}
        yield node.name, Signature(bases, taken, False, False)

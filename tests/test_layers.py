"""Who may import whom: each room of the package knows only rooms of the floors below it (docs/design.md)."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

import snn_sparsity

ROOT = Path(snn_sparsity.__file__).parent

FLOORS = [
    {"__init__", "cache", "validation", "randomness", "batch", "hyperparameters", "numerics", "protocols"},
    {"units"},
    {"measure"},
    {"runs", "configs", "encoders", "networks", "distributed", "optimisation"},
    {"figures", "data", "gradient_rules", "sweep"},
    {"documents", "attacks"},
    {"probes", "audit", "objectives"},
    {"reproduction", "classifier"},
    {"training", "experiments"},
    {"commands"},
    {"__main__"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
WITH_LIGHTNING = {"hyperparameters", "distributed", "optimisation", "classifier", "data", "probes", "training", "commands"}
"""Everything else is used, and tested, without a Trainer."""

INSTALLED_AS = {"PIL": "pillow", "lightning_utilities": "lightning-utilities", "sklearn": "scikit-learn", "yaml": "pyyaml"}
"""What is imported under another name than it is installed under."""


def room(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_above(path, floor=FLOOR):
    """Return the rooms that a file imports although they are not below its own."""
    ours = {name.split(".")[1] for name in imports(path) if name.startswith("snn_sparsity.")} & floor.keys()
    return {other for other in ours - {room(path)} if floor[other] >= floor[room(path)]}


FILES = sorted(path for path in ROOT.rglob("*.py"))


def test_every_folder_and_file_has_a_floor_and_every_floor_is_there():
    rooms = {path.name.removesuffix(".py") for path in ROOT.iterdir() if path.suffix == ".py" or any(path.glob("*.py"))}
    assert rooms == FLOOR.keys()


def test_the_design_tells_of_every_room_and_every_file_it_names_is_there():
    design = (ROOT.parent / "docs/design.md").read_text()
    for room_or_file in FLOOR.keys() - {"__init__", "__main__"}:
        assert f"{room_or_file}/" in design or f"{room_or_file}.py" in design, room_or_file
    named = set(re.findall(r"`((?:snn_sparsity|docs|tests)/[^`<:]*\.[a-z]+)", design))
    assert len(named) > 12
    assert {name for name in named if not (ROOT.parent / name).is_file()} == set()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path):
    assert not rooms_above(path)


def test_an_arrow_back_up_is_seen():
    attic = {**FLOOR, "measure": len(FLOORS)}
    assert any(rooms_above(path, attic) for path in FILES)


@pytest.mark.parametrize("path", [path for path in FILES if room(path) not in WITH_LIGHTNING], ids=lambda path: str(path.relative_to(ROOT)))
def test_leaves_know_no_lightning(path):
    assert not {name for name in imports(path) if name.split(".")[0] in ("lightning", "torchmetrics", "pytorch_lightning")}


def test_what_is_imported_is_declared():
    project = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["project"]
    declared = {re.match(r"[\w-]+", each)[0] for each in project["dependencies"]}
    imported = {name.split(".")[0] for path in FILES for name in imports(path)} - {"snn_sparsity"} - sys.stdlib_module_names
    assert {INSTALLED_AS.get(name, name) for name in imported} <= declared


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_spikingjelly_datasets_are_never_imported(path):
    # They pull in a torchaudio that does not match torch.
    assert not {name for name in imports(path) if name.startswith("spikingjelly.datasets")}

"""Who may import whom: the rooms of docs/design.md."""

import ast
from pathlib import Path

import pytest

import snn_sparsity

ROOT = Path(snn_sparsity.__file__).parent

# Everybody may use the one-line errors; a room may use itself.
ALLOWED = {
    "checks": set(),
    "files": set(),
    "interrupts": set(),
    "randomness": set(),
    "batch": set(),
    "encoders": set(),
    "networks": set(),
    "attacks": {"encoders", "gradient_rules"},
    "sparsity": set(),
    "operations": set(),
    "gradients": {"operations", "sparsity"},
    "nonfinite": set(),
    "memory": {"targets"},
    "theory": set(),
    "reachability": {"operations"},
    "pooling": set(),
    "correlation": set(),
    "report": {"audit", "correlation"},
    "drift": set(),
    "targets": {"attacks", "drift", "encoders"},
    "metering": {"attacks"},
    "saturation": set(),
    "gradient_rules": {"networks", "operations", "pooling"},
    "audit": {
        "files",
        "attacks",
        "encoders",
        "gradient_rules",
        "metering",
        "networks",
        "operations",
        "randomness",
        "saturation",
        "targets",
    },
    "sweep": {"files", "runs", "shipped"},
    "hyperparameters": set(),
    "data": {"encoders", "batch", "randomness", "hyperparameters"},
    "classifier": {"batch", "hyperparameters"},
}
WITHOUT_LIGHTNING = {
    "files", "interrupts", "runs",
    "checks", "randomness", "batch", "encoders", "networks", "attacks", "sparsity", "operations", "gradients", "targets", "theory",
    "reachability", "pooling", "correlation", "report", "metering", "gradient_rules", "audit", "saturation", "sweep", "nonfinite",
    "memory", "drift",
}  # fmt: skip


def room(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


FILES = sorted(path for path in ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", [path for path in FILES if room(path) in ALLOWED], ids=lambda path: str(path.relative_to(ROOT)))
def test_rooms_import_only_what_they_may(path):
    ours = {name.split(".")[1] for name in imports(path) if name.startswith("snn_sparsity.")}
    assert ours <= ALLOWED[room(path)] | {room(path), "checks"}


@pytest.mark.parametrize("path", [path for path in FILES if room(path) in WITHOUT_LIGHTNING], ids=lambda path: str(path.relative_to(ROOT)))
def test_leaves_know_no_lightning(path):
    assert not {name for name in imports(path) if name.split(".")[0] in ("lightning", "torchmetrics", "pytorch_lightning")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_spikingjelly_datasets_are_never_imported(path):
    # They pull in a torchaudio that does not match torch.
    assert not {name for name in imports(path) if name.startswith("spikingjelly.datasets")}

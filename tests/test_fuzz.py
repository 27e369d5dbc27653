"""Whatever is given, a command succeeds, or says in one line what is wrong, ends with 2, and leaves nothing behind."""

import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import strategies as st

from tests.fuzz import commands, constructors, images
from tests.fuzz.promise import fuzz


class Surface(NamedTuple):
    """Where rubbish comes in: its cases, what they are held to, and how many are tried in ``make test`` and in ``make test-full``."""

    cases: Callable[[], st.SearchStrategy]
    check: Callable
    few: int
    many: int


SURFACES = {
    "constructors": Surface(lambda: constructors.CASES, constructors.hold_constructor, 40, 600),
    "image folders": Surface(images.datasets, images.hold_dataset, 30, 400),
    "images to predict": Surface(lambda: images.FOLDER, images.hold_prediction, 20, 300),
    "training commands": Surface(commands.training_commands, commands.hold_command, 8, 350),
    "configurations": Surface(commands.config_files, commands.hold_config, 8, 250),
    "checkpoints": Surface(commands.checkpoints, commands.hold_checkpoint, 6, 80),
    "other commands": Surface(commands.other_commands, commands.hold_command, 40, 300),
    "broken runs": Surface(commands.broken_runs, commands.hold_reader, 8, 100),
}
ASKED = 2000
pytestmark = pytest.mark.filterwarnings("ignore")  # they are printed, and end nothing


@pytest.fixture(autouse=True)
def _on_its_own(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    # A case may ask for CIFAR.
    monkeypatch.setenv("SNN_SPARSITY_OFFLINE", "1")
    for protocol in ("http", "https"):
        monkeypatch.setenv(f"{protocol}_proxy", "http://127.0.0.1:9")
    # urllib keeps the proxies of its first call.
    monkeypatch.setattr("urllib.request._opener", None)


@pytest.mark.parametrize("name", SURFACES)
def test_a_little_rubbish(name):
    surface = SURFACES[name]
    fuzz(surface.cases(), surface.check, surface.few)


@pytest.mark.long
@pytest.mark.parametrize("name", SURFACES)
def test_much_rubbish(name):
    surface = SURFACES[name]
    fuzz(surface.cases(), surface.check, surface.many)


def test_much_is_as_much_as_was_asked_for():
    assert sum(surface.many for surface in SURFACES.values()) >= ASKED

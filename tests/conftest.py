import os
import signal
import sys
from pathlib import Path

import pytest
import torch

from tests.graphs import FakeGraph
from tests.tiny import TinyDataModule, TinyNetwork

# foolbox imports GitPython, which otherwise fails on a machine without git.
os.environ["GIT_PYTHON_REFRESH"] = "quiet"
# JAX-less, TensorFlow-less machines are fine; TensorBoard need not look.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# A suite in the background of a shell ignores Ctrl-C, and so would all that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SNN_SPARSITY_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def _denormals():
    """The command line flushes them in its process; tests that call it in theirs must not change those that come after."""
    torch.set_flush_denormal(False)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Run outside the checkout, with the module search path as it was."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return TinyNetwork()


@pytest.fixture
def data():
    module = TinyDataModule()
    module.setup("fit")
    return module


@pytest.fixture
def classifier(network):
    from snn_sparsity.classifier import SpikingClassifier

    return SpikingClassifier(network).eval()


@pytest.fixture
def trainer_options(tmp_path):
    return {
        "default_root_dir": str(tmp_path),
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
    }


@pytest.fixture
def captured(monkeypatch):
    """Capture as CUDA would: warm up, which moves BatchNorm's statistics and random numbers, and note the replays."""
    replays = []

    def capture(module, samples, allow_unused_input):
        for _ in range(3):
            module(*samples)
            torch.rand(())
        return FakeGraph(module, *samples, replays)

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", capture)
    return replays

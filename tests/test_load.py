"""Many epochs, long logs, networks that are too large."""

import json
import os
import re
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from snn_sparsity.commands.main import main
from snn_sparsity.data.images import ImageSet, Splits
from snn_sparsity.runs.curves import read_run
from snn_sparsity.training import memory
from snn_sparsity.training.metrics_logger import MetricsCSV
from snn_sparsity.validation import InputError
from tests.test_report import config
from tests.tiny import TinyDataModule

PROJECT = Path(__file__).parents[1]
LEAK = """
import os, re, sys
from lightning import Callback

class Watch(Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        kilobytes = int(re.search(r"VmRSS:\\s*(\\d+)", open("/proc/self/status").read())[1])
        print("SEEN", kilobytes, len(os.listdir("/proc/self/fd")), file=sys.stderr, flush=True)
"""


@pytest.mark.long
def test_500_epochs_leak_neither_memory_nor_handles(tmp_path):
    (tmp_path / "watch.py").write_text(LEAK)
    command = [
        sys.executable, "-m", "snn_sparsity", "fit", "--config", str(PROJECT / "tests/tiny.yaml"), "--trainer.max_epochs", "500",
        "--data.train_images", "4", "--data.test_images", "2", "--data.encoder", "PhaseEncoder", "--data.encoder.num_steps", "2",
        "--probes.codebook.init_args.attack.init_args.steps", "1", "--probes.pgd.init_args.attack.init_args.steps", "2",
        "--trainer.callbacks+=watch.Watch", "--trainer.log_every_n_steps", "1", "--trainer.enable_model_summary", "false",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path, env=environment)
    seen = [(int(memory), int(handles)) for memory, handles in re.findall(r"^SEEN (\d+) (\d+)$", done.stderr, re.M)]
    assert len(seen) == 500
    warm, last = seen[100], seen[-1]
    print(f"RSS {warm[0] / 1024:.1f} MiB after 100 epochs, {last[0] / 1024:.1f} MiB after 500")
    assert last[0] < 1.02 * warm[0]
    assert {handles for _, handles in seen[100:]} == {warm[1]}


# Long logs ------------------------------------------------------------------------------------------------------------------

TAGS, EPOCHS = 400, 500


@pytest.mark.long
def test_400_tags_of_500_epochs_are_read_and_reported(tmp_path):
    """The figure in docs/guarantees.md is what this prints."""
    run = tmp_path / "runs/long/seed_1/0"
    run.mkdir(parents=True)
    settings = config(seed=1, epochs=EPOCHS)
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    (run / "run.json").write_text(json.dumps({"status": "finished", "data": {"splits": {}}, "effective_batch_size": 16}))
    operations = [f"grad_{statistic}/conv/{place:03d}_layer{place}.conv" for place in range(1, 194) for statistic in ("zero", "norm")]
    names = ["train/loss_epoch", "val/loss", "val/accuracy", "fgsm/accuracy", "pgd/accuracy", "codebook/accuracy"]
    names += [f"grad_{statistic}_mean/{kind}" for statistic in ("zero", "norm") for kind in ("input", "conv", "bn", "neuron")]
    names += operations
    assert len(names) == TAGS
    logged = MetricsCSV(str(run))
    tensorboard = SummaryWriter(str(run))
    for epoch in range(EPOCHS):
        values = {name: (epoch + place) % 97 / 97 for place, name in enumerate(names)}
        logged.log_metrics({"epoch": epoch, **values}, epoch)
        for name, value in values.items():
            tensorboard.add_scalar(name, value, epoch)
    tensorboard.close()

    began = time.perf_counter()
    assert main(["report", str(tmp_path / "runs"), "--out", str(tmp_path / "report")]) == 0
    reported = time.perf_counter() - began
    assert "seed_1/0" in (tmp_path / "report/report.html").read_text()
    curves = read_run(run).values
    assert len(curves) == TAGS
    assert {len(curve) for curve in curves.values()} == {EPOCHS}

    began = time.perf_counter()
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    assert len(events.Tags()["scalars"]) == TAGS
    assert [event.step for event in events.Scalars(names[-1])] == list(range(EPOCHS))
    print(f"report {reported:.1f} s, TensorBoard's reader {time.perf_counter() - began:.1f} s")


def test_a_second_run_in_a_directory_is_not_mixed_with_the_first(tmp_path, caplog):
    def logged(accuracies, **options):
        logger = MetricsCSV(str(tmp_path), **options)
        for epoch, accuracy in accuracies.items():
            logger.log_metrics({"epoch": epoch, "val/accuracy": accuracy}, epoch)
        return read_run(tmp_path).curve("val/accuracy")

    assert logged({0: 0.1, 1: 0.2}) == ([0, 1], [0.1, 0.2])
    assert not caplog.text
    assert logged({0: 0.9}) == ([0], [0.9])
    assert caplog.text.count("metrics.csv is an earlier run's: it is now metrics.csv.old") == 1
    assert "0.2" in (tmp_path / "metrics.csv.old").read_text()
    assert logged({1: 0.8}, goes_on=True) == ([0, 1], [0.9, 0.8])


# Too large ------------------------------------------------------------------------------------------------------------------


LARGE = ["--config", "sew50_maxpool", "--data", "DigitsDataModule", "--trainer.accelerator", "cpu", "--data.encoder", "PhaseEncoder"]


@pytest.mark.usefixtures("elsewhere")
def test_what_memory_cannot_hold_is_refused_with_the_number_before_it_starts(monkeypatch, capsys):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 8 * 2**30)
    assert main(["fit", *LARGE, "--data.encoder.num_steps", "64", "--data.batch_size", "256"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    needed = float(re.search(
        r"a training step of 256 images with 64 time steps needs at least ([\d.]+) GiB of memory, and 8\.0 GiB are free on cpu: "
        r"give a smaller --data.batch_size .* or fewer time steps", line)[1])  # fmt: skip
    assert 15 < needed < 100
    assert list(Path.cwd().iterdir()) == []


class Flat(nn.Module):
    """Takes images of one size only."""

    num_classes = 4

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16 * 16, 4)

    def forward(self, spikes):
        return self.linear(spikes.flatten(2))


class SmallGrey(TinyDataModule):
    """Grey images of 16x16."""

    def load(self):
        return Splits(*(ImageSet(part.images[:, :1, :16, :16], part.labels) for part in super().load()))


@pytest.mark.usefixtures("elsewhere")
def test_images_of_any_size_are_trained_on_and_a_network_that_does_not_take_them_is_told(capsys):
    small = ["fit", "--config", str(PROJECT / "tests/tiny.yaml"), "--data", "tests.test_load.SmallGrey", "--probes", "null"]
    assert main([*small, "--model.network", "tests.test_load.Flat"]) == 0
    capsys.readouterr()
    before = sorted(Path.cwd().rglob("*"))
    assert main([*small, "--model.network", "tests.tiny.TinyNetwork"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert "the network does not take the spikes of two images [1, 16, 16], [10, 2, 1, 16, 16]: " in line
    assert sorted(Path.cwd().rglob("*")) == before


def test_what_is_kept_once_is_counted_once():
    class Shared(nn.Module):
        """Keeps 40 bytes for each image, and 400 whatever the batch."""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(100))

        def forward(self, x):
            return x.expand(1, -1, 10) * (self.weight * 2).square().sum()

    x = torch.ones(1, 2, 1).expand(1, 2, 1)
    one, hundred = (memory.step_bytes(Shared(), x, batch_size) for batch_size in (1, 100))
    assert 4 * 400 + 400 <= one < hundred < one + 100 * 40 + 1


@pytest.mark.parametrize("training", [True, False])
def test_estimating_leaves_no_trace(training, classifier):
    classifier.train(training)
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    random = torch.get_rng_state()
    assert memory.step_bytes(classifier, torch.ones(2, 2, 3, 32, 32), 16) > 16 * 2 * 3 * 32 * 32
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())
    assert all(module.training == training for module in classifier.modules())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(parameter.grad is None for parameter in classifier.parameters())


@pytest.mark.parametrize("fails", [False, True])
def test_estimating_wakes_no_threads(fails):
    class Watched(nn.Linear):
        def forward(self, x):
            seen.append(torch.get_num_threads())
            if fails:
                raise ValueError("odd")
            return super().forward(x)

    seen, before = [], torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with pytest.raises(ValueError, match="odd") if fails else nullcontext():
            memory.step_bytes(Watched(2, 1), torch.ones(1, 2, 2), 10)
        assert set(seen) == {1}
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_free_memory_of_this_machine_is_known():
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < memory.free_bytes(torch.device("cpu")) <= total


def test_a_container_s_limit_counts(tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text("4096\n")
    monkeypatch.setattr(memory, "CONTAINER_LIMITS", (str(tmp_path / "memory.max"),))
    assert memory.free_bytes(torch.device("cpu")) == 4096
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.free_bytes(torch.device("cpu")) > 2**20


def test_enough_memory_is_no_word():
    memory.require_memory(1, torch.device("cpu"), "nothing")
    with pytest.raises(InputError, match=r"much needs at least 1048576.0 GiB"):
        memory.require_memory(2**50, torch.device("cpu"), "much")

"""What TensorBoard shows of a run, asked of a real server."""

import json
import math
import re
import subprocess
import sys
import urllib.request

import pytest
from lightning import Trainer
from lightning.pytorch.callbacks import EarlyStopping

from snn_sparsity.classifier import SpikingClassifier
from snn_sparsity.commands.main import main
from snn_sparsity.training.figures import Figures
from tests.tiny import TinyDataModule, TinyNetwork

SHORT = ["--data.train_samples", "16", "--data.test_samples", "8", "--trainer.max_epochs", "2", "--probes.pgd.attack.steps", "1",
         "--probes.codebook.attack.steps", "1", "--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """TensorBoard on a shortened demo run; yields a function from a path to the JSON it answers."""
    folder = tmp_path_factory.mktemp("tensorboard")
    assert main(["fit", "--config", "demo", *SHORT, "--trainer.default_root_dir", str(folder / "runs")]) == 0
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder / "runs"), "--host", "127.0.0.1", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            address = next(match[0] for line in process.stderr if (match := re.search(r"http://\S+", line)))
            yield lambda path: json.loads(urllib.request.urlopen(address.rstrip("/") + path, timeout=60).read())
        finally:
            process.terminate()


RUN = "demo/seed_3407/0"


def test_curves(server):
    tags = server("/data/plugin/scalars/tags")[RUN].keys()
    assert tags >= {"train/loss_epoch", "val/accuracy", "fgsm/accuracy", "pgd/accuracy", "codebook/accuracy"}
    operations = sorted(tag for tag in tags if tag.startswith("grad_zero/"))
    # The input and 63 operations: 20 convolutions, 20 BatchNorms, 20 neurons, 2 poolings, 1 linear layer.
    assert len(operations) == 64
    assert "grad_zero/conv/01_conv1" in operations
    assert "grad_zero/linear/63_fc" in operations
    assert {tag.replace("grad_zero", "grad_norm") for tag in operations} <= tags
    depths = [int(tag.split("/")[2][:2]) for tag in operations if tag.startswith("grad_zero/neuron/")]
    assert depths == sorted(depths)


def test_a_curve_has_a_point_an_epoch_and_no_placeholder(server):
    points = server(f"/data/plugin/scalars/scalars?run={RUN}&tag=fgsm/accuracy")
    assert len(points) == 2
    assert all(isinstance(value, float) and 0 <= value <= 1 for _, _, value in points)


def test_three_groups_to_read_come_first(server):
    tags = server("/data/plugin/scalars/tags")[RUN].keys()
    groups = sorted({tag.split("/")[0] for tag in tags})
    assert groups[:3] == ["1 accuracy", "2 gradient zeros by kind", "3 gradient norm by kind"]
    first = {title: {tag.split("/")[1] for tag in tags if tag.startswith(f"{title}/")} for title in groups[:3]}
    assert first["1 accuracy"] == {"clean", "fgsm", "pgd", "codebook"}
    assert first["2 gradient zeros by kind"] == first["3 gradient norm by kind"]
    points = [server(f"/data/plugin/scalars/scalars?run={RUN}&tag={tag}") for tag in ("pgd/accuracy", "1%20accuracy/pgd")]
    assert [value for _, _, value in points[0]] == [value for _, _, value in points[1]]


def test_layout(server):
    layout = server("/data/plugin/custom_scalars/layout")
    charts = {category["title"]: [chart["title"] for chart in category["chart"]] for category in layout["category"]}
    assert list(charts)[:3] == ["1 accuracy", "2 gradient zeros by kind", "3 gradient norm by kind"]
    assert charts["2 gradient zeros by kind"] == ["mean of each kind"]
    assert set(charts["zeros of each operation"]) >= {"input", "conv", "bn", "neuron", "pool", "linear"}
    # Spaces and protocols never share a chart.
    assert charts["1 accuracy"] == ["clean, all images", "spikes, BatchNorm batch", "image, BatchNorm eval"]


def test_figures(server):
    tags = server("/data/plugin/images/tags")[RUN].keys()
    assert tags == {"figures/gradients", "figures/zeros_over_epochs"}


@pytest.mark.parametrize(
    ("options", "stop", "expected"),
    [({"max_epochs": 5}, [], [2, 4, 5]), ({"max_epochs": 4}, [], [2, 4]), ({"max_epochs": 99, "max_steps": 5}, [], [2, 3]),
     ({"max_epochs": 9}, [EarlyStopping("val/loss", patience=2, min_delta=100.0)], [2, 3])],
    ids=["epochs", "due", "steps", "early"],
)  # fmt: skip
def test_figures_are_drawn_of_the_last_epoch_whatever_ends_the_fit(options, stop, expected, trainer_options, monkeypatch):
    drawn = []
    # Which epoch it is shows in the number of steps, two each.
    monkeypatch.setattr(Figures, "_draw", lambda self, trainer: drawn.append(math.ceil(trainer.global_step / 2)))
    trainer = Trainer(**trainer_options | options, callbacks=[Figures(every_n_epochs=2), *stop])
    trainer.fit(SpikingClassifier(TinyNetwork()), datamodule=TinyDataModule(train_images=18, test_images=4, batch_size=8))
    assert drawn == expected


def test_hyperparameters(server):
    request = urllib.parse.quote(json.dumps({"experimentName": ""}))
    experiment = server(f"/data/plugin/hparams/experiment?request={request}")
    metrics = {info["name"]["tag"] for info in experiment["metricInfos"]}
    assert metrics >= {"val/accuracy", "fgsm/accuracy", "pgd/accuracy", "codebook/accuracy"}
    assert {info["name"] for info in experiment["hparamInfos"]} == {
        "network", "depth", "pool", "dataset", "encoder", "time steps", "optimizer", "lr", "batch size", "seed",
    }  # fmt: skip

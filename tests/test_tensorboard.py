"""What TensorBoard shows of a run, asked of a real server."""

import json
import math
import re
import subprocess
import sys
import urllib.request

import pytest

from snn_sparsity.commands.main import main

SHORT = ["--data.train_samples", "16", "--data.test_samples", "8", "--trainer.max_epochs", "2", "--probes.pgd.attack.steps", "1",
         "--probes.codebook.attack.steps", "1", "--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """TensorBoard on a shortened demo run; yields a function from a path to the JSON it answers."""
    folder = tmp_path_factory.mktemp("tensorboard")
    figures = ["--trainer.callbacks+=Figures"]
    assert main(["fit", "--config", "demo", *SHORT, *figures, "--trainer.default_root_dir", str(folder / "runs")]) == 0
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


def test_a_curve_has_a_point_an_epoch(server):
    points = server(f"/data/plugin/scalars/scalars?run={RUN}&tag=fgsm/accuracy")
    # HPARAMS puts NaN at step 0 first.
    assert len([value for _, _, value in points if isinstance(value, float) and not math.isnan(value)]) == 2


def test_layout(server):
    layout = server("/data/plugin/custom_scalars/layout")
    charts = {category["title"]: [chart["title"] for chart in category["chart"]] for category in layout["category"]}
    assert charts["gradient zeros"] == ["mean of each kind", "input", "conv", "bn", "neuron", "pool", "linear", "surrogate"]
    # Spaces and protocols never share a chart.
    assert charts["accuracy"] == ["clean", "spikes, BatchNorm batch", "image, BatchNorm eval"]


def test_figures(server):
    tags = server("/data/plugin/images/tags")[RUN].keys()
    assert tags == {"figures/gradients", "figures/zeros_over_epochs"}


def test_hyperparameters(server):
    request = urllib.parse.quote(json.dumps({"experimentName": ""}))
    experiment = server(f"/data/plugin/hparams/experiment?request={request}")
    metrics = {info["name"]["tag"] for info in experiment["metricInfos"]}
    assert metrics >= {"val/accuracy", "fgsm/accuracy", "pgd/accuracy", "codebook/accuracy"}
    assert "lr" in {info["name"] for info in experiment["hparamInfos"]}

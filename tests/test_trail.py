"""Section 5 as experiments: the paper's model against its formula, pruning by hand, false discoveries, what cannot exist."""

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from snn_sparsity.classifier import SpikingClassifier
from snn_sparsity.commands.main import main
from snn_sparsity.documents.blocks import Table
from snn_sparsity.experiments.attackers import ModelUnderTest
from snn_sparsity.experiments.trail import document, images, pruning, two_layers
from snn_sparsity.validation import InputError
from tests.tiny import TinyDataModule, TinyNetwork


@pytest.fixture
def case():
    torch.manual_seed(0)
    data = TinyDataModule(test_images=6, validation="test")
    data.setup("fit")
    test = data.split("test")
    classifier = SpikingClassifier(TinyNetwork()).train()
    with torch.no_grad():
        for _ in range(4):
            classifier(data.spike_encoder(test.images, torch.Generator()))
    return ModelUnderTest(classifier.eval(), data.spike_encoder, test.images, test.labels, 6)


@pytest.mark.parametrize(("hidden", "w1", "w2", "zeros"), [(1, 0.46, 0.77, 0.757), (16, 0.52, 0.52, 0.20)])
def test_random_networks_are_as_an_independent_script_found_them(hidden, w1, w2, zeros):
    found = two_layers.random_networks(hidden)
    assert found.w1.value == pytest.approx(w1, abs=0.12)
    assert found.w2.value == pytest.approx(w2, abs=0.12)
    assert found.zeros == pytest.approx(zeros, abs=0.04)
    assert found.zeros == pytest.approx(found.expected, abs=0.02)
    assert found.gradient.low > 0.3
    assert found.given_w2.low < 0 < found.given_w2.high, "nothing is left once the common cause is held fixed"


def test_pruned_zeros_reach_the_weight_gradient_and_stop(case):
    before = {name: value.clone() for name, value in case.classifier.state_dict().items()}
    own, earlier, doses = pruning.pruned(case)
    assert (own, earlier) == ("conv2", "conv1")
    assert [(dose.what, dose.share) for dose in doses] == [
        *(("entries", share) for share in pruning.DOSES), *(("input channels", share) for share in pruning.CHANNEL_DOSES),
    ]  # fmt: skip
    channels = {dose.share: dose for dose in doses if dose.what == "input channels"}
    # Two of eight channels without a weight: their gradients are zero, and those of the kernels that make them.
    assert channels[0.25].own >= 0.25
    assert channels[0.75].own == pytest.approx(0.75, abs=0.01)
    assert channels[0.25].weight == pytest.approx(0.25, abs=0.01)
    assert channels[0.75].weight == pytest.approx(0.75, abs=0.01)
    # The channels that are left fill the input.
    assert channels[0.25].first < 0.05
    assert channels[0.75].first < 0.2
    assert doses[0].own <= doses[-1].own
    assert all(torch.equal(value, before[name]) for name, value in case.classifier.state_dict().items())


def test_layers_without_a_convolution_before_them_are_refused(case):
    for layer in ("conv1", "fc", "nowhere"):
        with pytest.raises(InputError, match="conv2"):
            pruning.pruned(case, layer)


def test_over_images_the_gradients_are_autograd_s(case):
    layers = images.per_image(case)
    assert [layer.tag for layer in layers] == ["conv/01_conv1", "conv/05_conv2", "linear/09_fc"]
    for layer in layers:
        assert math.isnan(layer.rho) or layer.discovered >= layer.p


def test_false_discoveries_are_controlled():
    random = np.random.default_rng(0)
    tags, raw, kept = [str(place) for place in range(40)], 0, 0
    for _ in range(50):
        layers = images.discoveries(tags, random.random((40, 40, 3)))
        raw += any(layer.p < 0.05 for layer in layers)
        kept += any(layer.discovered < 0.05 for layer in layers)
    assert raw > 40, "forty tests at 5 % find something nearly always"
    assert kept < 10


def test_the_document_of_a_network(case):
    blocks = list(document.network_blocks("tiny", case))
    text = " ".join(block for block in blocks if isinstance(block, str))
    assert "no correlation with them exists" in text
    assert "refutes an attack, not the theorem's lower bound" in text
    tables = {block.name: block for block in blocks if isinstance(block, Table)}
    assert "inside_bounds" in {row[0].text for row in tables["theorem"].rows}


@pytest.mark.usefixtures("elsewhere")
def test_the_command(capsys, monkeypatch):
    monkeypatch.setattr(document, "random_networks", partial(two_layers.random_networks, networks=20))
    tiny = ["--config", str(Path(__file__).with_name("tiny.yaml")), "--probes", "null"]
    for _ in range(2):
        assert main(["fit", *tiny, "--data.test_images", "8"]) == 0
    one = "runs/tiny/seed_3407/0"
    assert main(["experiment", "trail", one, "--samples", "5", "--cpu", "--layer", "conv2"]) == 0
    written = Path("trail/index.md").read_text()
    assert "Pruning conv2 of tiny/seed_3407/0" in written
    assert main(["experiment", "trail", "--out", "model"]) == 0
    assert "Pruning" not in Path("model/index.md").read_text(), "the paper's model alone"
    capsys.readouterr()
    mistakes = (
        ([one, "--samples", "5", "--layer", "conv1"], "conv2"),
        ([one, "--samples", "9"], "has 8 images"),
        ([one, "runs/tiny/seed_3407/1"], "same run"),
        (["nowhere"], "no such folder"),
        (["--samples", "5", one], "unrecognized arguments"),
    )
    for arguments, said in mistakes:
        assert main(["experiment", "trail", *arguments, "--cpu"]) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert said in error
    assert main(["experiment", "luck"]) == 2

"""The causal experiment: measured on tiny networks against the probes, compared by hand, stopped and gone on with."""

import json
import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch

from snn_sparsity.attacks import PGD
from snn_sparsity.attacks.targets import SpikeTarget
from snn_sparsity.batch import SpikeBatch
from snn_sparsity.classifier import SpikingClassifier
from snn_sparsity.commands.main import main
from snn_sparsity.distributed import Meeting
from snn_sparsity.documents.blocks import Table
from snn_sparsity.experiments.attackers import RESULTS, ModelUnderTest, measure
from snn_sparsity.probes import AdversarialAccuracy
from snn_sparsity.probes.context import ProbeContext
from snn_sparsity.randomness import stream
from snn_sparsity.reproduction import attackers
from snn_sparsity.reproduction.attackers import ATTACKERS, MODES, attacks_in
from snn_sparsity.reproduction.causal import contrasts, document
from snn_sparsity.reproduction.causal.effects import slopes
from snn_sparsity.reproduction.causal.trained import Trained
from snn_sparsity.runs.files import only_writer
from tests.tiny import TinyDataModule, TinyNetwork


@pytest.fixture(params=["max", "avg"])
def case(request):
    torch.manual_seed(0)
    data = TinyDataModule(test_images=12, validation="test")
    data.setup("fit")
    classifier = SpikingClassifier(TinyNetwork(pool=request.param)).train()
    test = data.split("test")
    spikes = data.spike_encoder(test.images, stream(0))
    with torch.no_grad():
        for _ in range(4):
            classifier(spikes)
    return ModelUnderTest(classifier.eval(), data.spike_encoder, test.images, test.labels, 5, 7)


@pytest.fixture
def short(monkeypatch):
    """Fewer steps, where only the bookkeeping is tested."""
    monkeypatch.setattr(attackers, "STEPS", (1, 2))
    monkeypatch.setattr(attackers, "CODEBOOK_STEPS", 1)


def test_steps_of_one_ascent_are_the_attacks_by_themselves(case):
    found = case.attacked("spikes_eval", "own")
    for steps in (1, 7, 20):
        expected = []
        for start in range(0, 12, 7):
            labels = case.labels[start : start + 7]
            spikes = case.encoder(case.images[start : start + 7], stream(0)).transpose(0, 1)
            target = SpikeTarget(case.classifier)
            attacked = PGD(steps=steps, keep="last")(target, spikes, labels, stream(start))
            expected += (target.judge(attacked).argmax(1) == labels).tolist()
        assert found[f"pgd_{steps}"] == expected


@pytest.mark.parametrize("steps", [1, 7])
def test_the_papers_protocol_is_that_of_the_probe(case, steps):
    probe = AdversarialAccuracy(attack=PGD(steps=steps, keep="last"), space="spikes", batch_norm="batch")
    expected = []
    for start in range(0, 12, 5):
        context = ProbeContext(case.classifier, case.encoder, stream(start), start, (probe,), Meeting(), 0)
        images = case.images[start : start + 5]
        batch = SpikeBatch(case.encoder(images, stream(0)), case.labels[start : start + 5], images)
        expected += probe.measure(context, batch)["accuracy"].bool().tolist()
    before = {name: buffer.clone() for name, buffer in case.classifier.named_buffers()}
    assert case.attacked("spikes_batch", "own")[f"pgd_{steps}"] == expected
    assert all(torch.equal(buffer, before[name]) for name, buffer in case.classifier.named_buffers())


def test_replayed_attacks_find_the_same_under_every_rule(case, short, captured):
    for mode, attacker in product(MODES, ATTACKERS):
        before = len(captured)
        assert replace(case, graphs=True).attacked(mode, attacker) == case.attacked(mode, attacker), (mode, attacker)
        assert len(captured) > before, (mode, attacker)
    assert case.classifier.replayed is None


def test_every_result_is_asked_for_once_and_own_is_a_share(case, short):
    kept = {}

    def once(name, compute):
        if name not in kept:
            kept[name] = compute()
        return kept[name]

    asked = []
    found = json.loads(json.dumps(measure(case, lambda name, compute: asked.append(name) or once(name, compute))))
    assert len(asked) == RESULTS
    assert len(kept) == 1 + 2 * 3 * 4, "own is first (max) or uniform (average), and computed once"
    twin, other = ("first", "uniform") if found["pooling"] == "max" else ("uniform", "first")
    for mode in MODES:
        assert set(found["attacked"][mode]) == set(ATTACKERS)
        assert found["attacked"][mode]["own"] == found["attacked"][mode][twin]
        assert found["zeros"][mode]["own"] == found["zeros"][mode][twin]
        assert found["zeros"][mode]["first"] >= 0.75
        assert found["zeros"][mode]["uniform"] == 0
        assert all(len(text) == 12 for text in found["attacked"][mode][other].values())


# Compared ------------------------------------------------------------------------------------------------------------------


def trained(pooling, backward, decay=0.001, seed=1, lost=0):
    """Twenty images, all right without attack; under attack the first ``lost`` fall, one more for dense attackers."""
    content = {
        "name": f"{pooling}_{backward}_{decay}_{seed}", "pooling": pooling, "backward": backward, "weight_decay": decay, "seed": seed,
        "clean": "1" * 20, "audit": {}, "network": "SEW-ResNet18", "dataset": "cifar10", "epochs": 8, "train_images": 5000,
        "original_images": 20,
        "zeros": {mode: {"own": 0.8 if pooling == "max" else 0.0, "first": 0.8, "random": 0.8, "ties": 0.2, "uniform": 0.0}
                  for mode in MODES},
        "attacked": {mode: {attacker: {attack: "0" * fallen(attacker, pooling, lost) + "1" * (20 - fallen(attacker, pooling, lost))
                                       for attack in attacks_in(mode)} for attacker in ATTACKERS} for mode in MODES},
    }  # fmt: skip
    return Trained.read(content)


def fallen(attacker, pooling, lost):
    sparse = attacker in ("first", "random") or (attacker == "own" and pooling == "max")
    return lost + (not sparse)


GRID = [
    trained(pool, back, decay)
    for decay in (0.001, 0)
    for pool in ("max", "avg")
    for back in ("own", {"max": "uniform", "avg": "first"}[pool])
]


def test_who_is_compared_with_whom():
    assert [each.training for each in GRID[:4]] == ["sparse", "dense", "dense", "sparse"]
    # Seven columns; three attackers that are not the network's own.
    assert len(contrasts.attacker_contrasts(GRID)) == 8 * 3 * 7
    # Clean, seven columns under a sparse and a dense attacker, three worst cases; two forward passes, two decays.
    assert len(contrasts.training_contrasts(GRID)) == len(contrasts.forward_contrasts(GRID)) == 4 * (1 + 7 * 2 + 3)
    assert len(contrasts.decay_contrasts(GRID)) == 4 * (1 + 7 * 2 + 3)
    paper = contrasts.paper_contrasts(GRID)
    assert len(paper) == 2 * (1 + 7 + 3)
    assert {(each.first, each.second) for each in paper} == {("pooling max", "pooling avg")}
    assert contrasts.decay_contrasts(GRID[:4]) == []
    assert contrasts.forward_contrasts([GRID[0], trained("avg", "first", seed=2)]) == [], "other seeds are other networks"


def test_differences_and_slope_by_hand():
    network = trained("max", "own", lost=4)
    found = {
        each.first: each.found for each in contrasts.attacker_contrasts([network]) if each.attack == "pgd_7" and "batch" not in each.mode
    }
    assert {name: each.value for name, each in found.items()} == {"random": 0, "ties": -0.05, "uniform": -0.05}
    assert found["ties"].p == 1
    # Sparse attackers leave 16 of 20, the dense ones 15: x = .8 .8 .2 0, y = .8 .8 .75 .75.
    slope = slopes([network, trained("avg", "own", lost=10)], "pixels", "codebook_10")
    x = torch.tensor([0.8, 0.8, 0.2, 0.0]).double() - 0.45
    assert slope.value == pytest.approx((x @ torch.tensor([0.8, 0.8, 0.75, 0.75]).double()).item() / (x @ x).item(), rel=1e-5)
    assert sum(network.worst("pixels")) == 15


def test_the_document_says_what_it_could_have_seen():
    blocks = list(document.blocks(GRID))
    tables = [block for block in blocks if isinstance(block, Table)]
    assert len(tables) == 2 + len(contrasts.QUESTIONS)
    column = tables[2].header.index("could have seen")
    assert all(row[column].text for row in tables[2].rows)
    figure = document.figure(GRID)
    assert len([line for axes in figure.axes for line in axes.containers]) == 3 * len(GRID) * len(ATTACKERS)
    assert [axes.get_title().split(",")[0] for axes in figure.axes] == ["spikes", "spikes", "pixels"]
    assert sum("slope up" in sentence for sentence in document.answer(GRID)) == 0, "one image of twenty proves nothing"


# The command ---------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("elsewhere")
def test_the_command_measures_goes_on_and_draws_again(capsys, short):
    tiny = ["--config", str(Path(__file__).with_name("tiny.yaml")), "--probes", "null", "--data.test_images", "12"]
    rule = ["--model.backward", "PoolGradient", "--model.backward.share"]
    for pool, share in (("max", []), ("avg", [*rule, "first"])):
        assert main(["fit", *tiny, "--model.network.init_args.pool", pool, *share]) == 0
    command = ["experiment", "causal", "runs", "--samples", "8", "--out", "out", "--cpu"]
    assert main(command) == 0
    whole = {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()}
    assert {path.name for path in whole} == {"causal.json", "measured.json", "index.html", "index.md", "causal.png"}
    content = json.loads(Path("out/causal.json").read_text())
    assert [(each["pooling"], each["backward"]) for each in content["networks"]] == [("max", "own"), ("avg", "first")]
    with only_writer(Path("out")):
        assert main(command) == 2
    assert "out: another process is at work there" in capsys.readouterr().err
    # Stopped half-way: what is there is not measured again, the rest comes to the same bytes.
    kept = json.loads(Path("out/measured.json").read_text())
    half = dict(list(kept["results"].items())[: len(kept["results"]) // 2])
    shutil.rmtree("out")
    Path("out").mkdir()
    Path("out/measured.json").write_text(json.dumps(kept | {"results": half}))
    assert main(command) == 0
    assert {path: path.read_bytes() for path in whole} == whole
    # Each network by itself, and put together: the same document.
    for place, run in enumerate(sorted({path.parent for path in Path("runs").rglob("best.ckpt")}), 1):
        assert main(["experiment", "causal", str(run), "--samples", "8", "--out", f"part{place}", "--cpu"]) == 0
    assert main(["experiment", "causal", "part1", "part2", "--out", "together"]) == 0
    for path in ("causal.json", "index.md"):
        assert Path("together", path).read_bytes() == whole[Path("out", path)]
    assert main(["experiment", "causal", str(run), "part1", "--samples", "8", "--out", "mixed", "--cpu"]) == 0
    assert len(json.loads(Path("mixed/causal.json").read_text())["networks"]) == 2
    capsys.readouterr()
    for arguments, said in (
        (["part1", "out"], "given twice"),
        ([str(run), "part1", "--samples", "7", "--cpu"], "another samples"),
        ([str(run), "--samples", "7", "--cpu", "--cuda_graphs"], "--cuda_graphs needs a GPU"),
    ):
        assert main(["experiment", "causal", *arguments, "--out", "refused"]) == 2
        assert said in capsys.readouterr().err
        assert not Path("refused/causal.json").exists()
    # From what was measured alone.
    shutil.rmtree("runs")
    for path in ("out/index.md", "out/measured.json"):
        Path(path).unlink()
    assert main(["experiment", "causal", "--out", "out"]) == 0
    assert Path("out/index.md").read_bytes() == whole[Path("out/index.md")]
    capsys.readouterr()
    for arguments, said in (
        (["runs"], "no such folder"),
        (["--out", "nowhere"], "causal.json cannot be read"),
        (["--samples", "0"], "samples"),
        (["--samples", "x"], "invalid int"),
    ):
        assert main(["experiment", "causal", *arguments]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("damage", [{"settings": 3}, {"networks": 3}, {"networks": [3]}, {"networks": [{}]}])
def test_what_was_measured_by_another_version_is_refused(damage, capsys):
    Path("part").mkdir()
    content = json.loads((Path(__file__).parents[1] / "results/causal_rows/causal.json").read_text())
    Path("part/causal.json").write_text(json.dumps(content | damage))
    assert main(["experiment", "causal", "part", "--out", "together"]) == 2
    assert "part/causal.json is of another version" in capsys.readouterr().err
    assert not Path("together").exists()

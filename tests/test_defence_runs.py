"""Defences from the command line: what a run says of itself, and mistakes in one line."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from snn_sparsity.commands.main import main
from tests.test_cli import FEW, TINY, error, rows

pytestmark = pytest.mark.usefixtures("elsewhere")
DIRECT = ["--data.encoder", "DirectEncoder", "--data.encoder.num_steps", "2", "--data.batch_size", "8"]
NO_PROBES = ["--probes", "null"]
AT = ["--model.objective", "AdversarialTraining"]
RAT = [*AT, "--trainer.callbacks+", "OrthogonalRetraction", "--optimizer", "SGD", "--optimizer.lr", "0.1", "--optimizer.momentum", "0.9"]


def test_rat_is_a_composition_and_the_run_says_what_it_costs():
    assert main(["fit", *TINY, *FEW, *DIRECT, *NO_PROBES, *RAT]) == 0
    run = Path("runs/tiny/seed_3407/0")
    record = json.loads((run / "run.json").read_text())
    assert record["objective"].startswith("AdversarialTraining(attacks=None")
    assert record["passes"] == {"forwards": 2, "backwards": 2}
    names = {row["name"] for row in rows()}
    assert {"train/loss_epoch", "train/accuracy"} <= names
    assert "passes" not in names, "the progress bar's"
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"]["objective"]["class_path"].endswith("AdversarialTraining")
    assert main(["test", "--ckpt_path", str(run / "last.ckpt"), "--probes", "null"]) == 0


@pytest.mark.parametrize("objective", ["TRADES", "SparseGradient", "SharedNoise"])
def test_every_objective_runs_from_the_command_line(objective):
    assert main(["fit", *TINY, *FEW, *DIRECT, *NO_PROBES, "--model.objective", objective, "--trainer.fast_dev_run", "true"]) == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--model.objective", "SharedNoise", "--model.objective.periods", "3"], "does not divide the 2 time steps"),
        ([*AT, "--model.objective.space", "spikes", "--model.objective.attacks", "[CodeBookAscent]"], "space='image'"),
        ([*AT, "--model.objective.share", "2"], "share"),
        ([*AT, "--model.objective.attacks", "[]"], "at least one"),
        (["--model.objective", "SparseGradient", "--model.objective.weight", "-1"], "weight"),
        (["--model.objective", "Robustness"], "objective"),
        (["--trainer.callbacks", "OrthogonalRetraction", "--trainer.callbacks.beta", "0.5"], "beta=0.5 is not allowed"),
        (["--trainer.callbacks", "SimplexProjection"], "no convex residual sums"),
        (["--data.crop", "-1"], "crop"),
        (["--model.network", "snn_sparsity.networks.VGG", "--model.network.channels", "[A,4]"], "begins with a number"),
        (["--model.network", "snn_sparsity.networks.VGG", "--model.network.neurons.leak", "2"], "leak"),
        (["--model.network", "WideResNet", "--model.network.depth", "17"], "6n"),
    ],
)
def test_mistakes_get_one_line_and_leave_nothing(arguments, told, capsys):
    assert told in error(capsys, "fit", *TINY, *FEW, *DIRECT, *NO_PROBES, *arguments)


def test_the_probe_of_a_random_code_says_its_draws():
    random = ["--data.encoder", "QuantisedEncoder", "--data.encoder.num_steps", "2"]
    probe = ["--probes.apgd", "AdversarialAccuracy", "--probes.apgd.attack", "FGSM", "--probes.apgd.draws", "3"]
    probe += ["--probes.codebook", "null", "--probes.sparsity", "null", "--probes.pgd", "null", "--probes.fgsm", "null"]
    assert main(["fit", *TINY, *FEW, *random, *probe]) == 0
    record = json.loads(Path("runs/tiny/seed_3407/0/run.json").read_text())
    assert record["probes"]["apgd"] == "image, BatchNorm eval, EOT(eps=8/255, attack=FGSM(eps=8/255), draws=3)"
    assert record["eot_draws"] == {"apgd": 3}
    assert torch.get_default_dtype() == torch.float32

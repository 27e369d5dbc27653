"""Training under a backward rule, and the epoch that is kept, from the command line."""

import csv
from pathlib import Path

import pytest
import torch
import yaml

from snn_sparsity.commands.main import main

TINY = ["--config", str(Path(__file__).with_name("tiny.yaml")), "--trainer.max_epochs", "3", "--probes", "null"]
RUN = Path("runs/tiny/seed_3407/0")

pytestmark = pytest.mark.usefixtures("elsewhere")


def fit(*arguments):
    assert main(["fit", *TINY, *arguments]) == 0
    weights = torch.load(RUN / "last.ckpt", weights_only=True)["state_dict"]
    with (RUN / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return weights, {(int(row["epoch"]), row["name"]): float(row["value"]) for row in rows}


@pytest.mark.parametrize("by", ["loss", "accuracy", None])
def test_the_epoch_that_is_kept(by):
    _, values = fit(*(["--best", by] if by else []))
    best = torch.load(RUN / "best.ckpt", weights_only=True)
    sign, name = (1, "val/accuracy") if by == "accuracy" else (-1, "val/loss")
    assert best["epoch"] == max(range(3), key=lambda epoch: sign * values[epoch, name])
    # The paper's configuration, from which every run starts, keeps the lowest loss.
    assert yaml.safe_load((RUN / "config.yaml").read_text())["best"] == (by or "loss")


def test_a_rule_in_training_is_kept_with_the_run(capsys):
    plain, _ = fit()
    weights, _ = fit_again("--model.backward", "PoolGradient", "--model.backward.share", "uniform")
    assert not torch.equal(plain["network.conv1.weight"], weights["network.conv1.weight"])
    run = RUN.with_name("1")
    rule = yaml.safe_load((run / "config.yaml").read_text())["model"]["backward"]
    assert rule["class_path"] == "snn_sparsity.gradient_rules.PoolGradient"
    assert rule["init_args"]["share"] == "uniform"
    # The checkpoint says it too, in plain values.
    assert main(["validate", "--ckpt_path", str(run / "best.ckpt"), "--config", str(Path(__file__).with_name("tiny.yaml"))]) == 0
    made = yaml.safe_load((run / "validate/config.yaml").read_text())["model"]["backward"]
    assert made["init_args"]["share"] == "uniform"


def fit_again(*arguments):
    assert main(["fit", *TINY, *arguments]) == 0
    return torch.load(RUN.with_name("1") / "last.ckpt", weights_only=True)["state_dict"], None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--best", "luck"], "'accuracy', 'loss'"),
        (["--model.backward", "PoolGradient", "--model.backward.share", "median"], "median"),
        (["--model.backward", "Median"], "Median"),
    ],
)
def test_mistakes_get_one_line(capsys, arguments, said):
    assert main(["fit", *TINY, *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not Path("runs").exists()

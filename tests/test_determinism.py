"""The same seed gives the same bytes."""

import sys
from pathlib import Path

import pytest
import torch

from snn_sparsity.commands.main import main

FIT = [
    *("fit", "--config", str(Path(__file__).parent / "tiny.yaml"), "--trainer.max_epochs", "2", "--trainer.log_every_n_steps", "1"),
    # Codes, flips, attacks' starts and the network's first weights are all drawn.
    *("--data.encoder", "RateEncoder", "--data.encoder.num_steps", "4", "--probes.codebook", "null"),
]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    deterministic = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(deterministic)


def what_it_left(folder, *more):
    """The bytes of weights, optimiser and metrics; how long things took is no metric."""
    torch.rand(3)  # a process that has drawn before
    assert main([*FIT, "--trainer.default_root_dir", folder, *more]) == 0
    (run,) = Path(folder).glob("tiny/seed_*/0")
    checkpoint = torch.load(run / "last.ckpt")
    states = [state for group in checkpoint["optimizer_states"] for state in group["state"].values()]
    tensors = [*checkpoint["state_dict"].values(), *(value for state in states for value in state.values())]
    metrics = [line for line in (run / "metrics.csv").read_bytes().splitlines() if b",time/" not in line]
    return [tensor.numpy().tobytes() for tensor in tensors], metrics


@pytest.mark.parametrize("mode", [[], ["--trainer.deterministic", "true"]], ids=["default", "deterministic"])
def test_the_same_seed_gives_the_same_bytes(mode):
    one, other = what_it_left("one", *mode), what_it_left("other", *mode)
    assert one == other
    assert len(one[1]) > 50
    assert what_it_left("another", *mode, "--seed_everything", "5")[0] != one[0]


@pytest.mark.parametrize("value", ["true", "false"])
def test_a_seed_is_a_number_in_files_too(value, capsys):
    # Lightning takes true for seed 0, whatever its help says.
    Path("mine.yaml").write_text(f"seed_everything: {value}\n")
    assert main(["fit", "--config", "mine.yaml"]) == 2
    assert f"seed_everything={value} is not allowed: give a whole number" in capsys.readouterr().err
    assert [path.name for path in Path().iterdir()] == ["mine.yaml"]

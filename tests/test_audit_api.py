"""The audit of anybody's network, from Python."""

import json
import types

import pytest
import snntorch
import torch
import torchvision
from spikingjelly.activation_based import layer, neuron
from torch import nn

from snn_sparsity import PGD, audit
from snn_sparsity.audit.collect.adapter import Adapted
from snn_sparsity.audit.collect.subject import Subject
from snn_sparsity.audit.collect.weights import load_weights, read_weights
from snn_sparsity.audit.evidence import Evidence
from snn_sparsity.audit.run import AuditSettings, say_time
from snn_sparsity.encoders import DirectEncoder, RateEncoder
from snn_sparsity.validation import InputError


class SingleStep(nn.Module):
    """SpikingJelly, single-step mode: its loop over time is in its own forward."""

    def __init__(self):
        super().__init__()
        self.conv, self.spike, self.read_out = layer.Conv2d(3, 4, 3, 2), neuron.LIFNode(step_mode="s"), nn.Linear(36, 3)

    def forward(self, x):
        return torch.stack([self.read_out(self.spike(self.conv(x)).flatten(1)) for _ in range(2)])


class SnnTorch(nn.Module):
    """snnTorch with hidden states; it returns a tuple."""

    def __init__(self):
        super().__init__()
        self.conv, self.spike, self.read_out = nn.Conv2d(3, 4, 3, 2), snntorch.Leaky(beta=0.9, init_hidden=True), nn.Linear(36, 3)

    def forward(self, x):
        spikes = [self.spike(self.conv(x)).flatten(1) for _ in range(2)]
        return self.read_out(torch.stack(spikes).mean(0)), spikes


@pytest.mark.parametrize(
    "make", [SingleStep, SnnTorch, lambda: torchvision.models.resnet18(num_classes=3)], ids=["spikingjelly", "snntorch", "torchvision"]
)
def test_a_network_of_another_library(make, tmp_path):
    torch.manual_seed(0)
    model, images = make(), torch.rand(3, 3, 8, 8)
    labels = audit_labels(model, images)
    result = audit(model, images, labels, claim=PGD(steps=2))
    answers = result.answers["image"]
    assert answers.clean.value == 1.0
    assert answers.belief == "TOO FEW IMAGES", answers.because
    assert all(one.status in ("done", "does not apply") for one in result.evidence.protocols["image"].attacks)
    assert model.training, "it is left as it was"
    assert str(result).startswith(answers.do)
    result.save(tmp_path)
    assert json.loads((tmp_path / "audit.json").read_text())["answers"]["image"]["do"] == answers.do


def test_a_network_behind_a_random_code():
    torch.manual_seed(0)
    model = nn.Sequential(layer.Flatten(step_mode="m"), layer.Linear(48, 3, step_mode="m"))
    result = audit(model, torch.rand(3, 3, 4, 4), torch.tensor([0, 1, 2]), encoder=RateEncoder(num_steps=4))
    assert next(one for one in result.answers["image"].checks if one.check.id == "V1").finding.status == "warn"
    assert Evidence.from_json(result.evidence.to_json()) == result.evidence, "of plain numbers, with the default claim too"


@pytest.mark.parametrize("make", [SingleStep, SnnTorch], ids=["spikingjelly", "snntorch"])
def test_surrogate_rules_run_on_networks_of_other_libraries(make):
    torch.manual_seed(0)
    model, images = make(), torch.rand(3, 3, 8, 8)
    result = audit(model, images, audit_labels(model, images), claim=PGD(steps=2))
    rules = [one for one in result.evidence.protocols["image"].attacks if one.family == "rules"]
    ran = {one.name for one in rules if one.status == "done"}
    assert ran >= {"ATan, alpha 1", "ASSG", "ATan, alpha 8"}
    assert "takes one time step a call" in next(one.why for one in rules if one.name == "RGA")
    assert result.evidence.protocols["image"].harness.gap_rules == 0.0


class SuperSpike(torch.autograd.Function):
    """Somebody's own spike."""

    @staticmethod
    def forward(ctx, u):
        ctx.save_for_backward(u)
        return (u > 0).to(u)

    @staticmethod
    def backward(ctx, gradient):
        return gradient / (1 + ctx.saved_tensors[0].abs()) ** 2


class OwnSpikes(nn.Module):
    """Spikes by hand."""

    def __init__(self):
        super().__init__()
        self.layers, self.read_out = nn.Sequential(nn.Flatten(), nn.Linear(192, 8)), nn.Linear(8, 3)

    def forward(self, x):
        return self.read_out(SuperSpike.apply(self.layers(x)))


def test_derivatives_written_by_hand_are_told():
    torch.manual_seed(0)
    model, images = OwnSpikes(), torch.rand(3, 3, 8, 8)
    result = audit(model, images, audit_labels(model, images), claim=PGD(steps=2))
    (told,) = [one for one in result.evidence.protocols["image"].attacks if one.name == "surrogates"]
    assert told.status == "does not apply"
    assert told.why.startswith("there is no spiking neuron that rules know")
    assert told.why.endswith("its derivatives are autograd functions of its own: SuperSpike")


def audit_labels(model, images):
    """The classes that the network gives in eval mode: every image is then right."""
    adapted = Adapted(model)
    adapted.eval()
    with torch.no_grad():
        labels = adapted(((images * 255).round() / 255).unsqueeze(0)).argmax(1)
    model.train()
    return labels


def test_what_returns_no_logits_is_told_in_one_line():
    with pytest.raises(InputError, match="the audit needs logits"):
        audit(nn.Identity(), torch.rand(2, 3, 4, 4), torch.zeros(2, dtype=torch.long))


class Slow(nn.Module):
    """A linear network whose every pass takes as long as a clock that nobody waits for says."""

    def __init__(self, clock):
        super().__init__()
        self.layers, self.clock = nn.Sequential(nn.Flatten(), nn.Linear(48, 3)), clock

    def forward(self, x):
        self.clock.now += 0.5 * len(x)
        return self.layers(x)


@pytest.mark.parametrize(("budget", "units", "expected"), [("standard", 240, "about 2 minutes"), ("full", 28800, "about 4 hours")])
def test_a_budget_beyond_quick_says_its_time(budget, units, expected, capsys, monkeypatch):
    clock = types.SimpleNamespace(now=0.0)
    monkeypatch.setattr("snn_sparsity.audit.run.time", types.SimpleNamespace(perf_counter=lambda: clock.now))
    subject = Subject(Adapted(Slow(clock)).eval(), DirectEncoder(1), torch.zeros(4, 3, 4, 4, dtype=torch.uint8), torch.zeros(4), 3, 2, 1)
    say_time(subject, AuditSettings(budget=budget), units)
    assert f"--budget {budget}: {expected} on this machine" in capsys.readouterr().err


def test_the_time_is_said_before_the_first_attack_and_by_no_quick_audit(monkeypatch, capsys):
    class StoppedError(Exception):
        pass

    def attacked(*_):
        raise StoppedError

    monkeypatch.setattr("snn_sparsity.audit.collect.sequence.attack_batch", attacked)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    images = torch.rand(2, 3, 4, 4)
    labels = audit_labels(model, images)
    for budget, said in (("quick", False), ("standard", True)):
        with pytest.raises(StoppedError):
            audit(model, images, labels, budget=budget)
        assert ("on this machine" in capsys.readouterr().err) is said


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".npz"])
def test_weights_of_every_kind_with_a_prefix(suffix, tmp_path):
    import numpy as np
    import safetensors.torch

    source, model, path = nn.Linear(2, 1), nn.Linear(2, 1), tmp_path / f"w{suffix}"
    weights = {f"module.{name}": tensor for name, tensor in source.state_dict().items()}
    {".pt": lambda: torch.save({"state_dict": weights}, path), ".safetensors": lambda: safetensors.torch.save_file(weights, path),
     ".npz": lambda: np.savez(path, **{name: tensor.numpy() for name, tensor in weights.items()})}[suffix]()  # fmt: skip
    load_weights(model, read_weights(path))
    assert torch.equal(model.weight, source.weight)
    with pytest.raises(InputError, match="missing: 0.bias, 0.weight; unknown: wrong"):
        load_weights(nn.Sequential(nn.Linear(2, 1)), {"wrong": torch.zeros(1)})

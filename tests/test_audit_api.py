"""The audit of anybody's network, from Python."""

import json
import types
from dataclasses import replace

import pytest
import snntorch
import torch
import torchvision
from spikingjelly.activation_based import layer, neuron
from torch import nn

from snn_sparsity import PGD, audit
from snn_sparsity.audit.collect.adapter import Adapted
from snn_sparsity.audit.collect.battery import BUDGETS
from snn_sparsity.audit.collect.foresight import Foresight
from snn_sparsity.audit.collect.journal import Journal
from snn_sparsity.audit.collect.subject import Subject
from snn_sparsity.audit.collect.weights import load_weights, read_weights
from snn_sparsity.audit.evidence import Evidence, read_audit
from snn_sparsity.audit.run import AuditSettings, settings_of
from snn_sparsity.encoders import PhaseEncoder, RateEncoder
from snn_sparsity.networks import IFNeuron
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


class Linear(nn.Module):
    """A linear network that somebody may have written in many ways."""

    def __init__(self, returns=lambda logits, x: logits, before=lambda x: x, channels=3, size=(8, 8), classes=5):
        super().__init__()
        self.returns, self.before = returns, before
        self.layer = nn.Linear(channels * size[0] * size[1], classes)

    def forward(self, x):
        return self.returns(self.layer(self.before(x).flatten(1)), x)


class Patches(nn.Module):
    """Attention over patches."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Linear(48, 16), nn.Linear(16, 5)
        self.blocks = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 1)

    def forward(self, x):
        patches = x.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).reshape(len(x), -1, 48)
        return self.head(self.blocks(self.embed(patches)).mean(1))


class OwnCode(nn.Module):
    """Its own normalisation and its own spike code inside."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor(0.4))
        self.spike, self.layer = neuron.LIFNode(step_mode="m"), nn.Linear(192, 5)

    def forward(self, x):
        spikes = self.spike(((x - self.mean) / 0.25).expand(3, *x.shape))
        return self.layer(spikes.flatten(2)).mean(0)


class NoParameters(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :5]


class OnlyInEval(Linear):
    def forward(self, x):
        return {"loss": 0.0} if self.training else super().forward(x)


@pytest.fixture
def _small(monkeypatch):
    small = replace(BUDGETS["quick"], steps=2, queries=10, references=1, rules=1, probes=2, radii=(255,), noise=2)
    monkeypatch.setitem(BUDGETS, "quick", small)


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize(
    "make",
    [
        lambda: Linear(lambda logits, x: (logits, x)),
        lambda: Linear(lambda logits, x: {"logits": logits, "loss": 0.0}),
        lambda: Linear().double(),
        lambda: Linear().bfloat16(),
        lambda: Linear(before=lambda x: x.sub_(0.5)),
        lambda: Linear(channels=1, size=(20, 28)),
        OnlyInEval,
        NoParameters,
        Patches,
        OwnCode,
    ],
    ids=[
        "tuple",
        "dictionary",
        "float64",
        "bfloat16",
        "in place",
        "grey 20 x 28",
        "only in eval",
        "no parameters",
        "attention",
        "own code",
    ],
)
def test_a_network_of_any_kind(make):
    torch.manual_seed(0)
    model = make()
    images = (
        torch.rand(3, 1, 20, 28) if getattr(model, "layer", None) is not None and model.layer.in_features == 560 else torch.rand(3, 3, 8, 8)
    )
    before = images.clone()
    result = audit(model, images, audit_labels(model, images))
    assert result.answers["image"].clean.value == 1.0
    assert {one.status for one in result.evidence.protocols["image"].attacks} <= {"done", "does not apply"}
    assert [one.what for one in result.evidence.not_run] == ["image: planted examples"]
    assert torch.equal(images, before)


IMAGES, LABELS = torch.rand(3, 3, 8, 8), torch.tensor([0, 1, 2])


@pytest.mark.parametrize(
    ("model", "images", "labels", "more", "told"),
    [
        (nn.Identity(), IMAGES, LABELS, {}, r"the model returns \[1, 3, 8, 8\] for 1 images: the audit needs logits"),
        (Linear(lambda logits, x: "logits"), IMAGES, LABELS, {}, "the model returns str for 1 images"),
        (Linear(classes=1), IMAGES, LABELS, {}, "the network knows 1 class"),
        (
            Linear(lambda logits, x: torch.from_numpy(logits.numpy())),
            IMAGES,
            LABELS,
            {},
            "no gradient can be taken of it: Can't call numpy",
        ),
        (Linear(), torch.rand(3, 3, 9, 9), LABELS, {}, r"the network does not take images \[3, 9, 9\]: .*mat1 and mat2"),
        (lambda x: x, IMAGES, LABELS, {}, "the model is a function: an audit needs a torch.nn.Module"),
        (Linear(), IMAGES, LABELS + 4, {}, "knows 5 classes, and there is a label 5"),
        (Linear(), IMAGES, LABELS - 1, {}, "knows 5 classes, and there is a label -1"),
        (Linear(), IMAGES, LABELS.float(), {}, "labels of shape .* and type torch.float32"),
        (Linear(), IMAGES, LABELS[:, None], {}, r"labels of shape \[3, 1\]"),
        (Linear(), IMAGES, LABELS[:2], {}, r"images are \[3, 3, 8, 8\], and there are 2 labels"),
        (Linear(), IMAGES[:0], LABELS[:0], {}, "there are 0 labels"),
        (Linear(), IMAGES, "abc", {}, "images and labels must be tensors"),
        (Linear(), 255 * IMAGES, LABELS, {}, r"give uint8, or float in \[0,1\]"),
        (Linear(), IMAGES.double() * float("nan"), LABELS, {}, "images: number 0 .* holds NaN"),
        (Linear(), (255 * IMAGES).long(), LABELS, {}, "images of type torch.int64"),
        (Linear(), IMAGES, LABELS, {"claim": "PGD"}, "claim='PGD' is no attack"),
        (Linear(), IMAGES, LABELS, {"claim": PGD(eps=0.1)}, "eps=0.1 is 25.50 grey levels"),
        (Linear(), IMAGES, LABELS, {"encoder": "phase"}, "encoder='phase' is no spike code"),
        (Linear(), IMAGES, LABELS, {"training": (IMAGES, LABELS + 5)}, "there is a label 5"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(model, images, labels, more, told):
    with pytest.raises(InputError, match=told) as caught:
        audit(model, images, labels, **more)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("eps", [0.0314, 0.03134])
def test_eps_near_a_whole_grey_level_is_that_level(eps):
    model = Linear()
    result = audit(model, IMAGES, audit_labels(model, IMAGES), eps=eps, claim=PGD(eps=eps, steps=2))
    attacks = result.evidence.protocols["image"].attacks
    assert result.evidence.eps == 8 / 255
    assert 0 < max(one.largest_perturbation for one in attacks if one.eps == 8 / 255) <= 8 / 255 + 1e-6
    assert {one.eps for one in attacks if one.role == "claim"} == {8 / 255}


@pytest.mark.usefixtures("_small")
def test_images_and_labels_may_be_arrays_or_bytes():
    model, levels = Linear(), (255 * IMAGES).to(torch.uint8)
    expected = audit(model, levels, LABELS).evidence
    for images, labels in (
        (levels.float() / 255, LABELS.int()),
        (levels.numpy(), LABELS.numpy()),
        (levels.double() / 255, LABELS.tolist()),
    ):
        assert audit(model, images, labels).evidence.clean == expected.clean


@pytest.mark.usefixtures("_small")
def test_an_audit_of_numbers_that_are_not_finite_is_read_back(tmp_path):
    model = Linear(lambda logits, x: logits * float("nan"))
    result = audit(model, IMAGES, torch.zeros(3, dtype=torch.long))
    assert read_audit(result.save(tmp_path) / "audit.json").clean == [False] * 3, "NaN is no class"
    assert "right on none" in result.answers["image"].do


def test_nothing_to_attack_is_said():
    model = Linear()
    wrong = (audit_labels(model, IMAGES) + 1) % 5
    assert (
        audit(model, IMAGES, wrong).answers["image"].do == "Quote nothing: the network is right on none of the 3 images without an attack."
    )


class Slow(nn.Module):
    """Two classes by the mean of an image; each pass takes as long as a clock that nobody waits for says: a backward one twice."""

    def __init__(self, clock):
        super().__init__()
        self.clock = clock

    def forward(self, x):
        self.take(len(x))
        if x.requires_grad:
            x.register_hook(lambda gradient: self.take(2 * len(x)))
        score = x.mean((1, 2, 3)) - 0.5
        return torch.stack([score, -score], 1)

    def take(self, seconds):
        self.clock.now += seconds


@pytest.mark.parametrize(("apart", "broken"), [(0.2, 0), (0.02, 24), (None, 12)], ids=["nothing breaks", "all breaks", "half of it breaks"])
def test_the_time_said_is_within_a_factor_of_two_of_what_it_takes(apart, broken, monkeypatch):
    clock, said = types.SimpleNamespace(now=0.0), []
    monkeypatch.setattr("snn_sparsity.audit.collect.foresight.time", types.SimpleNamespace(perf_counter=lambda: clock.now))
    monkeypatch.setattr("snn_sparsity.audit.run._say", lambda budget, foresight: said.append((foresight, clock.now)))
    monkeypatch.setitem(BUDGETS, "standard", replace(BUDGETS["standard"], steps=5, queries=60, planted=0, noise=5))
    away = torch.tensor([0.02, 0.2]).repeat(12) if apart is None else torch.full((24,), apart)
    images = torch.rand(24, 3, 6, 6, generator=torch.Generator().manual_seed(0)) * 0.1 + 0.45 + away.view(-1, 1, 1, 1)
    answers = audit(Slow(clock), images, torch.zeros(24, dtype=torch.long), budget="standard").answers["image"]
    assert round(24 * answers.worst.value) == 24 - broken
    ((foresight, before),) = said
    taken = clock.now - before
    assert taken / 2 < foresight.seconds < 2 * taken
    assert foresight.at_most >= foresight.seconds


def test_a_time_is_said_in_seconds_minutes_or_hours():
    assert str(Foresight(12.3, 700)) == "about 12 seconds on this machine, at most 12 minutes, if no attack breaks an image"
    assert str(Foresight(700, 28800)) == "about 12 minutes on this machine, at most 8 hours, if no attack breaks an image"


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


@pytest.mark.parametrize("less", ["", "module.", "model.net."])
@pytest.mark.parametrize("more", ["", "0.", "0.0."])
def test_a_prefix_more_or_less_on_either_side(less, more):
    def network():
        return nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1))

    torch.manual_seed(0)
    source, model = network(), network()
    # In the order in which a .safetensors file gives them: what no network must have comes first.
    weights = {f"{less}{name}": tensor for name, tensor in sorted(source.state_dict().items(), key=lambda one: "tracked" not in one[0])}
    wrapped = model
    for _ in range(more.count(".")):
        wrapped = nn.Sequential(wrapped)
    load_weights(wrapped, weights)
    assert torch.equal(model[1].weight, source[1].weight)


def test_a_rename_that_renames_nothing_is_told():
    with pytest.raises(InputError, match=r"--weights.rename head=fc: no name of the weights has head, such as weight, bias"):
        load_weights(nn.Linear(2, 1), dict(nn.Linear(2, 1).state_dict()), ["head=fc"])


@pytest.mark.parametrize("budget", ["quick", "standard"])
def test_a_network_that_is_never_right_has_nothing_to_attack(budget):
    network = nn.Sequential(nn.Flatten(), nn.Linear(IMAGES[0].numel(), 3))
    wrong = (network((255 * IMAGES).round() / 255).argmax(1) + 1) % 3
    assert "right on none" in audit(network, IMAGES, wrong, budget=budget).answers["image"].do


def test_logits_that_are_no_numbers_are_right_about_nothing():
    class Broken(nn.Module):
        def forward(self, x):
            return x.flatten(1).sum(1, keepdim=True) + torch.tensor([float("nan"), 0, 0])

    assert audit(Broken(), IMAGES, torch.zeros(3, dtype=torch.long)).answers["image"].clean.value == 0


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")
def test_a_scripted_network_is_refused_and_a_seed_must_be_one():
    network = nn.Sequential(nn.Flatten(), nn.Linear(IMAGES[0].numel(), 3))
    with pytest.raises(InputError, match="a scripted network takes no hooks"):
        audit(torch.jit.script(network), IMAGES, LABELS)
    for seed in (1.5, -1, True, "a"):
        with pytest.raises(InputError, match="seed"):
            audit(network, IMAGES, LABELS, seed=seed)


@pytest.mark.parametrize(
    "other",
    [
        lambda: (PhaseEncoder(4, 2), IFNeuron()),
        lambda: (PhaseEncoder(4), IFNeuron(alpha=9.0)),
        lambda: (PhaseEncoder(4), IFNeuron(threshold=0.3)),
        lambda: (PhaseEncoder(4), IFNeuron(detach_reset=False)),
    ],
    ids=["another code", "another surrogate", "another threshold", "another reset"],
)
def test_an_audit_does_not_go_on_with_the_results_of_another_network_or_code(other, tmp_path):
    def identity(encoder, neurons):
        torch.manual_seed(0)
        network = nn.Sequential(neurons.build(), nn.Flatten(2), nn.Linear(12, 3))
        subject = Subject(network, encoder, IMAGES[:2], LABELS[:2], 3, 2, 0)
        return settings_of(subject, AuditSettings())

    mine = identity(PhaseEncoder(4), IFNeuron())
    Journal(tmp_path / "journal.json", mine).once("answer", lambda: 42)
    assert identity(PhaseEncoder(4), IFNeuron()) == mine
    with pytest.raises(InputError, match="settings_sha256"):
        Journal(tmp_path / "journal.json", identity(*other()))
    with pytest.raises(InputError, match="flips=None, not 5"):
        Journal(tmp_path / "journal.json", mine | {"flips": 5})
    without = {name: value for name, value in mine.items() if name != "flips"}
    Journal(tmp_path / "other.json", mine | {"flips": 5}).once("answer", lambda: 42)
    with pytest.raises(InputError, match="flips=5, not None"):
        Journal(tmp_path / "other.json", without)


@pytest.mark.parametrize("space", ["spikes", "paper", "flips", "steps"])
def test_a_network_that_takes_images_has_no_spikes_to_attack(space):
    with pytest.raises(InputError, match="there are no encoded spikes to change|one time step only"):
        audit(Linear(), IMAGES, LABELS, space=space)


@pytest.mark.usefixtures("_small")
def test_what_makes_no_sense_is_left_out_and_told():
    result = audit(Linear(), IMAGES, LABELS, space="all")
    assert set(result.answers) == {"image"}
    assert {one.what for one in result.evidence.not_run} >= {"spikes", "paper", "flips", "steps"}

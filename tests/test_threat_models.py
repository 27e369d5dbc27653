"""What an attacker may change: images by time step, flips of spikes, and the mean over a random network's draws."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from snn_sparsity import PGD, audit
from snn_sparsity.attacks import EOT, CodeBookAscent, SpikeFlips
from snn_sparsity.attacks.base import input_gradient, margin
from snn_sparsity.attacks.targets import ImageTarget, StepwiseTarget
from snn_sparsity.audit.collect.attacking import attack_batch
from snn_sparsity.audit.collect.battery import BUDGETS, Battery, Facts, cost
from snn_sparsity.audit.collect.subject import Subject
from snn_sparsity.audit.collect.threat_models import threat_models
from snn_sparsity.audit.run import AuditSettings
from snn_sparsity.classifier import SpikingClassifier
from snn_sparsity.encoders import DirectEncoder, LatencyEncoder, PhaseEncoder, RateEncoder
from snn_sparsity.validation import InputError
from tests.test_audit import EPS, SMALL, Behind, audited, direction, score, trained, two_classes
from tests.tiny import TinyNetwork

TINY = replace(SMALL, steps=3, queries=17, noise=2, radii=(255,), references=1, probes=2, draws=2)


class Linear(nn.Module):
    """A linear functional of the spikes [T,N,C,H,W], and its opposite."""

    def __init__(self, *shape, seed=1):
        super().__init__()
        self.weights = nn.Parameter(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)))

    def forward(self, spikes):
        value = (spikes * self.weights.unsqueeze(1)).flatten(2).sum((0, 2))
        return torch.stack([-value, value], 1)


def grey(count=2, size=4, seed=3):
    return torch.randint(0, 256, (count, 1, size, size), generator=torch.Generator().manual_seed(seed)) / 255


# An image for each time step -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", [PhaseEncoder(4), LatencyEncoder(5), DirectEncoder(3)], ids=str)
def test_equal_images_are_the_image(encoder):
    torch.manual_seed(0)
    classifier = SpikingClassifier(TinyNetwork()).eval()
    x = torch.rand(2, 3, 32, 32)
    same = x.unsqueeze(1).repeat(1, encoder.num_steps, 1, 1, 1)
    whole, by_step = ImageTarget(classifier, encoder), StepwiseTarget(classifier, encoder)
    assert torch.equal(by_step.encode(same), whole.encode(x))
    assert torch.equal(by_step.judge(same), whole.judge(x))
    labels = torch.tensor([0, 1])
    gradient = input_gradient(by_step.logits, same, labels)[0]
    torch.testing.assert_close(gradient.sum(1), input_gradient(whole.logits, x, labels)[0])
    assert not torch.equal(gradient[:, 0], gradient[:, 1])


def test_each_step_shows_its_own_image_by_hand():
    # Levels 0x80 and 0x40 in a phase code: the first bit is set in the first, the second bit in the second alone.
    target = StepwiseTarget(SpikingClassifier(TinyNetwork()), PhaseEncoder(2))
    high, middle = torch.full((1, 1, 1, 1), 0x80 / 255), torch.full((1, 1, 1, 1), 0x40 / 255)
    codes = {"both high": (high, high), "high, middle": (high, middle), "middle, high": (middle, high)}
    shown = {name: target.encode(torch.stack(images, 1)).flatten().tolist() for name, images in codes.items()}
    assert shown == {"both high": [1, 0], "high, middle": [1, 1], "middle, high": [0, 0]}


@pytest.mark.parametrize("encoder", [PhaseEncoder(8), LatencyEncoder(5)], ids=str)
@pytest.mark.parametrize("radius", [1, 8])
def test_code_book_ascent_by_step_is_brute_force_on_a_linear_functional(encoder, radius):
    classifier = Linear(encoder.num_steps, 1, 4, 4)
    images = grey()
    x = images.unsqueeze(1).repeat(1, encoder.num_steps, 1, 1, 1)
    target, labels = StepwiseTarget(classifier, encoder), torch.tensor([0, 0])
    attacked = CodeBookAscent(eps=radius / 255, steps=1, loss="margin")(target, x, labels)
    assert (attacked - x).abs().max() <= radius / 255 + 1e-6
    book, levels = encoder.code_book, (255 * images).round().long()
    best = torch.zeros(2)
    for step in range(encoder.num_steps):
        worth = [classifier.weights[step] * book[(levels + move).clamp(0, 255), step] for move in range(-radius, radius + 1)]
        best += torch.stack(worth).amax(0).flatten(1).sum(1).detach()
    torch.testing.assert_close(margin(target.judge(attacked), labels), 2 * best)
    together = CodeBookAscent(eps=radius / 255, steps=1, loss="margin")(ImageTarget(classifier, encoder), images, labels)
    assert (margin(ImageTarget(classifier, encoder).judge(together), labels) <= 2 * best + 1e-5).all(), "one image can do no more"


# Protocols of their own names --------------------------------------------------------------------------------------------------


def test_steps_and_flips_are_audited_as_protocols_of_their_own(tmp_path):
    classifier, images, encoder = trained()
    evidence, answers = audited(classifier, images[:2], tmp_path, ("steps", "flips"), encoder, budget=replace(TINY, rules=1, probes=1))
    steps, flips = evidence.protocols["steps"], evidence.protocols["flips"]
    assert not [one for one in evidence.not_run if "Error" in one.why], evidence.not_run
    for protocol in (steps, flips):
        ran = [one for one in protocol.attacks if one.status == "done"]
        assert {"claim", "native", "reference", "arm"} <= {one.role for one in ran}
        assert {one.status for one in protocol.attacks} <= {"done", "does not apply"}, [one.why for one in protocol.attacks]
        assert all(one.largest_perturbation <= one.eps + 1e-6 for one in ran)
        assert protocol.harness.in_bounds
        assert protocol.harness.gap_rules == 0.0
        assert protocol.harness.gap_judge == 0.0
    assert (steps.space, steps.perturbation, steps.harness.on_lattice) == ("image", "linf", True)
    assert (flips.space, flips.perturbation) == ("spikes", "flips")
    assert flips.what == f"encoded spikes, at most {round(0.0025 * 4 * 3072)} of {4 * 3072} flipped; BatchNorm in eval mode"
    assert all("Flips" in one.attack for one in flips.attacks if one.status == "done" and one.family != "rules")
    assert answers["flips"].worst.value <= min(answers["flips"].native.value, answers["flips"].quoted.value)
    assert next(one.finding.status for one in answers["flips"].checks if one.check.id == "V12") == "does not apply"
    assert next(one.finding.status for one in answers["flips"].checks if one.check.id == "V4") == "pass"


def test_more_flips_leave_less():
    classifier, images, encoder = trained()
    labels = classifier.eval()(encoder(images)).argmax(1)
    subject = Subject(classifier, encoder, images, labels, 4, 64, 3407)
    left = []
    for count in (1, 2000):
        (flips,) = threat_models(("flips",), subject, count)
        host = flips.battery(TINY, EPS, facts(random=False)).host()
        record = attack_batch(subject, flips, host, list(range(24)), (1,))
        assert 0 < record["largest"] <= 1
        left.append(record["fooled"].count(False))
    assert left[0] > left[1]


def test_what_makes_no_sense_is_told_and_alone_refused(tmp_path):
    images, weights = torch.randint(60, 196, (2, 3, 12, 12), dtype=torch.uint8), direction()
    classifier = Behind(lambda x: two_classes(score(x, weights)))
    evidence, _ = audited(classifier, images, tmp_path, ("image", "flips", "steps"), budget=TINY)
    assert set(evidence.protocols) == {"image"}
    told = {one.what: one.why for one in evidence.not_run}
    assert told["flips"] == "the network takes images: there are no encoded spikes to change"
    assert told["steps"] == "there is one time step only: it is the image protocol"
    for name in ("flips", "steps"):
        with pytest.raises(InputError, match=f"^{name}: "):
            audited(classifier, images, tmp_path / name, (name,), budget=TINY)


def test_the_claim_of_a_protocol_is_of_its_own_kind():
    subject = Subject(Linear(4, 3, 8, 8), PhaseEncoder(4), torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.zeros(1), 2, 1, 1)
    image, flips = threat_models(("image", "flips"), subject, flips=7)
    assert flips.quoted(PGD(), EPS) == SpikeFlips(flips=7)
    assert flips.quoted(SpikeFlips(flips=99, steps=3), EPS) == SpikeFlips(flips=7, steps=3)
    assert image.quoted(SpikeFlips(), EPS) == PGD(eps=EPS, keep="last")
    assert image.quoted(PGD(steps=3), EPS) == PGD(steps=3)
    assert threat_models(("flips",), subject)[0].flips == 2  # 0.25 % of 768
    with pytest.raises(InputError, match="flips"):
        AuditSettings(flips=0)


def test_flips_are_counted_and_nothing_else_is_one():
    subject = Subject(Linear(4, 3, 8, 8), PhaseEncoder(4), torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.zeros(1), 2, 1, 1)
    (flips,) = threat_models(("flips",), subject, flips=4)
    x = torch.tensor([[0.0, 1.0, 1.0, 0.0]])
    assert flips.distance(torch.tensor([[1.0, 0.0, 1.0, 0.0]]), x) == 0.5
    assert flips.distance(torch.tensor([[1.0, 0.5, 1.0, 0.0]]), x) == float("inf")


# Random networks ---------------------------------------------------------------------------------------------------------------


def facts(**more):
    return Facts(**{"random": True, "spiking": True, "max_pooling": True, "coded": False, "num_classes": 10} | more)


@pytest.mark.parametrize("coded", [False, True])
@pytest.mark.parametrize("budget", BUDGETS)
def test_every_attack_on_a_random_network_averages_over_its_draws(budget, coded):
    battery = Battery(True, BUDGETS[budget], EPS, facts(coded=coded))
    jobs = [*battery.cross_entropy(), *battery.scale_free(), *battery.loss_arm(), *battery.references(), *battery.arms()]
    assert len(jobs) > 15
    for job in jobs:
        inner = job.attack
        while not isinstance(inner, EOT) and hasattr(inner, "attack"):
            inner = inner.attack
        assert isinstance(inner, EOT), job.name
    singles, (mean,) = battery.averaging()
    assert not any(isinstance(job.attack, EOT) for job in singles)
    assert sum(cost(job.attack) for job in singles) >= cost(mean.attack)
    plain = Battery(True, BUDGETS[budget], EPS, facts(random=False, coded=coded))
    for one, other in zip(battery._without_gradients(), plain._without_gradients(), strict=True):
        assert battery.budget.draws * cost(one[1]) <= 1.2 * cost(other[1]) + battery.budget.draws * 17, (
            "no more looks than at a sure network"
        )
    assert plain.averaging() == ([], [])
    assert not any("EOT" in repr(job.attack) for job in [*plain.cross_entropy(), *plain.references(), *plain.arms()])


def test_a_random_code_is_attacked_by_its_mean_and_judged_by_several_draws():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(2), nn.Linear(48, 3))
    images = torch.rand(3, 3, 4, 4)
    result = audit(network, images, torch.tensor([0, 1, 2]), encoder=RateEncoder(3), claim=PGD(steps=2), space="image")
    attacks = [one for one in result.evidence.protocols["image"].attacks if one.status == "done"]
    assert all(one.averaged for one in attacks)
    assert all("EOT" in one.attack for one in attacks if one.role == "native")
    assert {one.role for one in attacks if one.stream == "draws"} == {"reference", "arm"}


def test_values_that_are_no_spikes_cannot_be_flipped():
    images = torch.randint(60, 196, (2, 3, 12, 12), dtype=torch.uint8)
    subject = Subject(torch.nn.Identity(), DirectEncoder(2), images, torch.tensor([0, 1]), 2, 2, 0)
    (flips,) = threat_models(["flips"], subject)
    assert flips.refuses(subject) == "the code shows other values than 0 and 1, which nobody can flip"

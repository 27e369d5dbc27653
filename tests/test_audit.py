import json
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from snn_sparsity.audit.collect.battery import Budget
from snn_sparsity.audit.collect.conduct import Audit
from snn_sparsity.audit.collect.journal import Journal
from snn_sparsity.audit.collect.subject import Subject
from snn_sparsity.audit.judge.answers import judge
from snn_sparsity.classifier import SpikingClassifier
from snn_sparsity.encoders import DirectEncoder, PhaseEncoder
from snn_sparsity.networks.neurons import IFNeuron
from snn_sparsity.validation import InputError
from tests.test_contracts import State
from tests.tiny import TinyNetwork, colourful

EPS = 8 / 255
SMALL = Budget(
    samples=32, steps=10, restarts=1, references=2, targets=1, noise=3, queries=60, radii=(32, 255), rules=2, probes=4, planted=0, draws=8
)


class Behind(nn.Module):
    """A function of images [N,C,H,W] as a classifier of spike trains [1,N,C,H,W]."""

    def __init__(self, function, *modules):
        super().__init__()
        self.function = function
        self.modules_of_it = nn.ModuleList(modules)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, spikes):
        return self.function(spikes[0]) * self.scale


def two_classes(score):
    """Logits of four classes, of which two matter: the score for class 1, its opposite for class 0."""
    return torch.stack([-score, score, torch.full_like(score, -9.0), torch.full_like(score, -9.0)], 1)


def noisy_images(count=32, size=12, low=60, high=196, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, high, (count, 3, size, size), generator=generator, dtype=torch.uint8)


def audited(classifier, images, tmp_path, protocols=("image",), encoder=None, labels=None, training=None, budget=SMALL):
    """The evidence and the verdicts; without labels, every image is right when clean."""
    encoder = encoder or DirectEncoder(num_steps=1)
    classifier.eval()
    if labels is None:
        with torch.no_grad():
            labels = classifier(encoder(images)).argmax(1)
    subject = Subject(classifier, encoder, images, labels, 4, 16, 3407)
    evidence = Audit(subject, protocols, budget, EPS, Journal(tmp_path / "journal.json", {}), training).run()
    return evidence, judge(evidence)


def status(answers, check):
    return next(one.finding.status for one in answers.checks if one.check.id == check)


def masked_by(answers):
    """The families of attacks that did significantly better than the native ones; empty unless the answer is MASKED."""
    assert answers.belief == "MASKED", answers.because
    return {one.family for one in answers.comparisons if one.adjusted < 0.001}


def direction(size=12, seed=1):
    """Weights of a linear score that a move of all pixels by a tenth of eps turns round for a score of 1/10."""
    weights = torch.randn(3, size, size, generator=torch.Generator().manual_seed(seed))
    return weights / weights.abs().sum()


def score(images, weights):
    """A score in units of eps: 1 is what an attack within eps can just undo."""
    return (images * weights).sum((1, 2, 3)) / EPS


def with_scores(images, weights, wanted):
    """Images moved along the weights' signs until their score is the wanted one."""
    x = images / 255
    for _ in range(20):
        gap = wanted - score(x, weights)
        x = (x + (gap * EPS).view(-1, 1, 1, 1) * weights.sign()).clamp(0, 1)
    return (x * 255).round().to(torch.uint8)


def trained(steps=30):
    """A spiking network that knows its colours, images of them, and their code."""
    images, labels = colourful(64, 4, seed=3)
    encoder = PhaseEncoder(num_steps=4)
    torch.manual_seed(0)
    classifier = SpikingClassifier(TinyNetwork()).train()
    optimizer = torch.optim.Adam(classifier.parameters(), lr=0.01)
    for step in range(steps):
        batch = slice(step % 4 * 16, step % 4 * 16 + 16)
        loss = F.cross_entropy(classifier(encoder(images[batch])), labels[batch])
        parameters = list(classifier.parameters())
        for parameter, change in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = change
        optimizer.step()
    return classifier, images, encoder


def test_longer_budgets_walk_along_the_boundary_and_mix_surrogates(tmp_path):
    classifier, images, encoder = trained()
    budget = replace(SMALL, walk=40, mixed=2, rules=16, steps=3, queries=9, noise=1, radii=(), references=1, probes=1)
    evidence, _ = audited(classifier, images[:2], tmp_path, protocols=("image", "spikes"), encoder=encoder, budget=budget)
    for protocol in evidence.protocols.values():
        arms = {one.name: one for one in protocol.attacks if one.role == "arm"}
        assert arms["HopSkipJump, 40 queries"].family == "no gradient"
        assert arms["MDSE, 2 steps"].family == "rules"
        assert {"ASSG", "ASSG, triangle", "ASSG, Gaussian", "ASSG, sigmoid", "ASSG, rect"} <= arms.keys()
        assert {name for name, one in arms.items() if one.status != "done"} == {"straight through rounding"}
        assert protocol.harness.gap_rules == 0.0
        assert protocol.harness.in_bounds
        assert all(one.largest_perturbation <= one.eps + 1e-6 for one in protocol.attacks)


# Masked on purpose -----------------------------------------------------------------------------------------------------------


def test_saturated_logits_are_masked(tmp_path):
    weights = direction()
    images = with_scores(noisy_images(), weights, torch.full((32,), 0.4))
    evidence, answers = audited(Behind(lambda x: 1e4 * two_classes(score(x, weights))), images, tmp_path)
    native = next(one for one in evidence.protocols["image"].attacks if one.role == "native")
    assert native.zero_gradient_start == 32
    assert masked_by(answers["image"]) == {"loss"}
    assert answers["image"].do.startswith("Do not quote 100.0 %: at most 0.0 % (0 of 32) survive")


def needle(classifier):
    """Give a classifier a surrogate gradient that is 0 nearly everywhere."""
    for name in ("sn1", "sn2"):
        node = IFNeuron(surrogate="rect", alpha=1000.0).build()
        node.step_mode = "m"
        setattr(classifier.network, name, node)


def test_a_needle_of_a_surrogate_is_masked(tmp_path):
    classifier, images, encoder = trained()
    needle(classifier)
    few = replace(SMALL, steps=5, queries=1, radii=(), rules=1)
    evidence, answers = audited(classifier, images[:48], tmp_path, ("spikes",), encoder, budget=few)
    assert "rules" in masked_by(answers["spikes"])
    idle = [one.name for one in evidence.protocols["spikes"].attacks if one.status == "does not apply"]
    assert "straight through rounding" in idle, "a rule that changes no gradient is told, not counted"


def test_an_input_quantiser_is_masked(tmp_path):
    colours = torch.full((3, 12, 12), 1 / 432)
    images = with_scores(noisy_images(), colours, torch.full((32,), 0.4) + score(torch.full((1, 3, 12, 12), 0.5), colours))

    def quantised(x):
        return two_classes(score((x * 32).round() / 32, colours) - score(torch.full((1, 3, 12, 12), 0.5), colours))

    evidence, answers = audited(Behind(quantised), images, tmp_path)
    assert evidence.protocols["image"].diagnostics.zero_entries == 1.0
    assert "rules" in masked_by(answers["image"])


class Steps(nn.Module):
    """Blocks the gradient: a comparison has no derivative."""

    def forward(self, x):
        return (x > torch.linspace(0, 1, 65).view(-1, 1, 1, 1, 1)).float().mean(0)


def test_a_module_that_blocks_the_gradient_is_passed_straight_through_and_masked(tmp_path):
    weights, steps = direction(), Steps()
    images = with_scores(noisy_images(), weights, torch.full((32,), 0.4))
    _, answers = audited(Behind(lambda x: two_classes(score(steps(x), weights)), steps), images, tmp_path)
    assert "rules" in masked_by(answers["image"])
    assert answers["image"].worst.value < 0.1


def test_max_pooling_whose_ties_hide_the_gradient_is_masked(tmp_path):
    pool = nn.MaxPool2d(6)
    images = torch.full((32, 3, 12, 12), 128, dtype=torch.uint8)
    images += torch.arange(32, dtype=torch.uint8).view(-1, 1, 1, 1) % 2
    function = Behind(lambda x: two_classes((pool(x).mean((1, 2, 3)) - 128 / 255) / EPS + 0.4), pool)
    _, answers = audited(function, images, tmp_path)
    assert "rules" in masked_by(answers["image"])
    assert status(answers["image"], "V18") == "fail"


def test_a_random_layer_is_masked_when_expectation_undoes_it(tmp_path):
    weights = direction()
    images = with_scores(noisy_images(), weights, torch.full((32,), 0.5))
    frequency = 4000.0

    def shaken(x):
        phase = 2 * math.pi * torch.rand_like(x)
        shake = torch.sin(frequency * x + phase) * (6 / 432 / frequency / EPS)
        return two_classes(score(x, weights) + shake.sum((1, 2, 3)))

    _, answers = audited(Behind(shaken), images, tmp_path)
    assert "averaging" in masked_by(answers["image"])
    assert status(answers["image"], "V1") == "warn"


def test_averaging_over_draws_keeps_each_attacks_own_ball(tmp_path):
    """The ball of any image, and those of the sweep: in the audited one instead, V29 called honest random networks masked."""
    weights = direction()
    images = with_scores(noisy_images(16), weights, torch.full((16,), 1.5))
    random = Behind(lambda x: two_classes(score(x + 1e-3 * torch.randn_like(x), weights)))
    evidence, answers = audited(random, images, tmp_path)
    attacks = evidence.protocols["image"].attacks
    assert {round(255 * one.eps) for one in attacks if one.role == "radius"} == set(SMALL.radii)
    (anywhere,) = [one for one in attacks if one.role == "reference" and one.stream == "unbounded"]
    assert anywhere.eps == 1.0
    assert anywhere.fooled[0]
    assert status(answers["image"], "V29") == "pass"


def test_batch_norm_in_training_mode_is_invalid(tmp_path):
    classifier, images, encoder = trained()
    evidence, answers = audited(classifier, images[:16], tmp_path, ("paper",), encoder)
    assert answers["paper"].belief == "NOT VALID"
    assert evidence.protocols["paper"].harness.realisable == 0.0
    assert "BatchNorm takes the batch's statistics" in answers["paper"].do
    assert answers["paper"].because.startswith("The network that is attacked, whose BatchNorm takes the batch's statistics, is not the one")
    assert "% right again" in answers["paper"].because
    assert answers["paper"].quoted is not None, "what can be measured is told"
    assert status(answers["paper"], "V26") in ("pass", "warn")


# Honest ----------------------------------------------------------------------------------------------------------------------


def test_a_linear_classifier_with_a_certified_margin_is_not_accused(tmp_path):
    weights = direction()
    images = with_scores(noisy_images(), weights, torch.linspace(1.2, 2, 32))
    _, answers = audited(Behind(lambda x: two_classes(score(x, weights))), images, tmp_path)
    assert answers["image"].belief == "TOO FEW IMAGES"
    assert answers["image"].worst.value == 1.0
    assert status(answers["image"], "V21") == "does not apply", "no spiking neuron: nothing to test is no gap"
    assert status(answers["image"], "V29") == "pass", "nothing withstands the largest ball"


def test_an_adversarially_trained_network_is_not_accused(tmp_path):
    images, labels = colourful(64, 4, seed=5)
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 8, 5, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4))
    optimizer = torch.optim.Adam(layers.parameters(), lr=0.01)
    for _ in range(60):
        x = (images / 255).requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(layers(x), labels), x)
        loss = F.cross_entropy(layers((x + EPS * gradient.sign()).detach()), labels)
        for parameter, change in zip(layers.parameters(), torch.autograd.grad(loss, list(layers.parameters())), strict=True):
            parameter.grad = change
        optimizer.step()
    _, answers = audited(Behind(layers, layers), images[:16], tmp_path, labels=labels[:16])
    assert answers["image"].belief == "TOO FEW IMAGES"


# Odd ones --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_dead_and_broken_networks_are_reported_and_nothing_raises(value, tmp_path):
    images, labels = noisy_images(8), torch.arange(8) % 4
    evidence, answers = audited(Behind(lambda x: two_classes(x.mean((1, 2, 3)) * value)), images, tmp_path, labels=labels)
    assert answers["image"].do
    assert all(one.status != "failed" for one in evidence.protocols["image"].attacks)


def test_two_classes_have_no_dlr_and_it_is_said(tmp_path):
    weights = direction()
    images = with_scores(noisy_images(8), weights, torch.full((8,), 0.4))
    subject = Subject(
        Behind(lambda x: two_classes(score(x, weights))[:, :2]), DirectEncoder(1), images, torch.ones(8, dtype=torch.int64), 2, 8, 1
    )
    evidence = Audit(subject, ["image"], SMALL, EPS, Journal(tmp_path / "j.json", {})).run()
    assert not any("loss='dlr'" in one.attack or "targeted" in one.attack for one in evidence.protocols["image"].attacks)
    assert judge(evidence)["image"].worst.value == 0.0


def test_classifier_and_random_state_are_untouched(tmp_path):
    torch.manual_seed(0)
    classifier = SpikingClassifier(TinyNetwork()).eval()
    images, labels = colourful(3, 4, seed=6)
    before = State(classifier)
    audited(classifier, images, tmp_path, ("image", "spikes", "paper"), PhaseEncoder(num_steps=4), labels=labels, training=(images, labels))
    before.assert_equal(classifier)


# Stopping and going on -------------------------------------------------------------------------------------------------------


class Stopping(Journal):
    """A journal whose audit is killed after so many results."""

    def __init__(self, path, stop_after):
        super().__init__(path, {})
        self.left = stop_after

    def once(self, name, compute):
        if name not in self and self.left == 0:
            raise KeyboardInterrupt
        self.left -= name not in self
        return super().once(name, compute)


def test_an_audit_stopped_at_any_result_goes_on_to_the_same_numbers(tmp_path):
    weights = direction()
    images = with_scores(noisy_images(16), weights, torch.linspace(0.2, 1.5, 16))
    classifier = Behind(lambda x: two_classes(score(x, weights)))
    subject = Subject(classifier, DirectEncoder(1), images, torch.ones(16, dtype=torch.int64), 4, 8, 3407)

    def without_seconds(evidence):
        return json.loads(
            json.dumps(evidence.to_json()), object_hook=lambda part: {key: value for key, value in part.items() if key != "seconds"}
        )

    whole = without_seconds(Audit(subject, ["image", "paper"], SMALL, EPS, Journal(tmp_path / "whole.json", {})).run())
    stops = 0
    while True:
        try:
            pieces = Audit(subject, ["image", "paper"], SMALL, EPS, Stopping(tmp_path / "pieces.json", 7)).run()
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops > 3
    assert without_seconds(pieces) == whole


def test_progress_ends_where_it_said(tmp_path):
    weights = direction()
    images = with_scores(noisy_images(8), weights, torch.full((8,), 0.4))
    classifier = Behind(lambda x: two_classes(score(x, weights))).eval()
    told = []
    subject = Subject(classifier, DirectEncoder(num_steps=1), images, torch.ones(8, dtype=torch.long), 4, 16, 3407)
    foreseen = []
    Audit(
        subject, ("image", "spikes"), SMALL, EPS, Journal(tmp_path / "j", {}), tell=lambda name, done, total: told.append((done, total)),
        foretold=lambda foresight: foreseen.append((foresight, len(told))),
    ).run()  # fmt: skip
    ((foresight, before),) = foreseen
    assert before == 0, "before the first attack"
    assert 0 < foresight.seconds < foresight.at_most, "the first attack breaks images"
    assert all(done <= total for done, total in told)
    assert told[-1][0] == pytest.approx(told[-1][1])
    assert told[-1][0] > 0


def test_a_journal_of_another_audit_is_refused(tmp_path):
    Journal(tmp_path / "j.json", {"seed": 1}).once("clean", list)
    with pytest.raises(InputError, match="seed=1, not 2"):
        Journal(tmp_path / "j.json", {"seed": 2})
    (tmp_path / "j.json").write_text("{")
    with pytest.raises(InputError, match="no readable journal"):
        Journal(tmp_path / "j.json", {"seed": 1})

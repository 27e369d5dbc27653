"""V15: planted adversarial examples."""

from dataclasses import replace
from itertools import islice

import pytest
import torch
from torch import nn

from snn_sparsity.attacks import PGD, CodeBookAscent, Noise
from snn_sparsity.audit.collect import planted as module
from snn_sparsity.audit.collect.conduct import Audit
from snn_sparsity.audit.collect.journal import Journal
from snn_sparsity.audit.collect.planted import Features, PlantedNetwork, ReadOut, planted, separate
from snn_sparsity.audit.collect.subject import Subject
from snn_sparsity.audit.collect.threat_models import PIXELS, SPIKES, threat_models
from snn_sparsity.validation import InputError
from tests.test_audit import EPS, SMALL, needle, trained

ATTACKS = {
    "image": {"found": CodeBookAscent(eps=EPS, steps=40, loss="margin"), "noise": Noise(eps=EPS, draws=20, kind="levels")},
    "spikes": {"found": PGD(eps=EPS, steps=40, alpha=EPS / 8, loss="margin"), "noise": Noise(eps=EPS, draws=20)},
}


@pytest.fixture(autouse=True)
def _fewer_points(monkeypatch):
    monkeypatch.setattr(module, "INNER", 199)


@pytest.fixture(scope="module")
def subject():
    classifier, images, encoder = trained()
    classifier.eval()
    return Subject(classifier, encoder, images[:16], classifier(encoder(images[:16])).argmax(1), 4, 64, 3407)


def with_needles(subject):
    """The same network with a surrogate gradient that is 0 nearly everywhere."""
    classifier, _, _ = trained()
    needle(classifier)
    return replace(subject, classifier=classifier.eval())


def looked_for(subject, space, count=2):
    """What the attacks found of the first examples that could be planted."""
    found = (planted(subject, {"image": PIXELS, "spikes": SPIKES}[space], place, ATTACKS[space]) for place in range(16))
    return list(islice(filter(None, found), count))


@pytest.mark.parametrize("space", ["image", "spikes"])
def test_an_attack_finds_what_noise_does_not(space, subject):
    results = looked_for(subject, space, 4)
    assert [result["found"] for result in results] == [True] * 4
    assert sum(result["noise"] for result in results) <= 2


def test_an_attack_without_a_gradient_finds_nothing(subject):
    assert [result["found"] for result in looked_for(with_needles(subject), "spikes")] == [False] * 2


def test_the_corner_alone_is_on_the_other_side():
    generator = torch.Generator().manual_seed(0)
    inner, corner = torch.rand(50, 6, generator=generator), torch.full((6,), 1.5)
    read_out = separate(inner, corner)
    scores = inner @ read_out.weights
    assert scores.max() < read_out.threshold < corner @ read_out.weights
    # 0.999 of the way from the outermost point inside.
    way = (read_out.threshold - scores.max()) / (corner @ read_out.weights - scores.max())
    assert way == pytest.approx(0.999, abs=1e-3)


def test_a_corner_among_the_others_or_features_that_never_change_have_no_read_out():
    inner = torch.tensor([[-1.0], [1.0], [0.0]])
    assert separate(inner, torch.tensor([0.5])) is None
    assert separate(torch.ones(5, 3), torch.ones(3)) is None


def test_features_are_what_the_last_layer_sees(subject):
    spikes = subject.encoder(subject.images[:3])
    network = subject.classifier.network
    features = Features(subject.classifier)(spikes)
    torch.testing.assert_close(network.fc(features), subject.classifier(spikes))
    logits = PlantedNetwork(subject.classifier, ReadOut(torch.ones(features.shape[1]), 2.0))(spikes)
    torch.testing.assert_close(logits[:, 1], features.sum(1) - 2)
    assert torch.equal(logits[:, 0], -logits[:, 1])
    assert not network.fc._forward_pre_hooks
    with pytest.raises(InputError, match="match no operation"):
        Features(nn.Flatten())


def test_the_audit_counts_them_or_says_why_not(subject, tmp_path):
    def planted_of(count):
        budget = replace(SMALL, planted=count, radii=(), queries=1, rules=0, references=1, noise=1)
        few = replace(subject, images=subject.images[:4], labels=subject.labels[:4])
        audit = Audit(few, ("spikes",), budget, EPS, Journal(None, {})).run()
        return audit.protocols["spikes"].diagnostics.planted, [one.why for one in audit.not_run]

    measured, _ = planted_of(2)
    assert measured.samples == 2
    missing, why = planted_of(0)
    assert missing is None
    assert any("this budget plants none" in reason for reason in why)


def test_it_does_not_depend_on_who_came_before(subject):
    first, second = looked_for(subject, "image")
    assert looked_for(subject, "image") == [first, second]


def test_a_planted_corner_keeps_to_the_flips_that_are_allowed(subject):
    (flips,) = threat_models(["flips"], subject, flips=10)
    spikes, _ = flips.inputs(subject, [0, 1])
    corner = flips.corner(spikes, 1.0, subject.generator(1))
    assert (corner != spikes).flatten(1).sum(1).tolist() == [10, 10]

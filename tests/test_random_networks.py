"""The audit of a network or code that draws: an image's draws are its own, so that an attack that changes nothing breaks nothing."""

import pytest
import torch
from torch import nn

from snn_sparsity import audit
from snn_sparsity.attacks import PGD, Noise, Transfer
from snn_sparsity.audit.collect.attacking import attack_batch
from snn_sparsity.audit.collect.conduct import clean_hits
from snn_sparsity.audit.collect.subject import JUDGE_DRAWS, Subject
from snn_sparsity.audit.collect.threat_models import PIXELS, SPIKES
from snn_sparsity.classifier import SpikingClassifier
from snn_sparsity.encoders import RateEncoder
from tests.tiny import TinyNetwork


class Noisy(nn.Module):
    """Black or white, with so much noise on the logits that a change by 8/255 hardly matters."""

    def __init__(self, sigma=2.7):
        super().__init__()
        self.sigma, self.scale = sigma, nn.Parameter(torch.ones(1))

    def forward(self, x):
        lightness = (x.mean((1, 2, 3)) - 0.5) * 2 * self.scale
        logits = torch.stack([-lightness, lightness, -2 - 0 * lightness], 1)
        return logits + self.sigma * torch.randn_like(logits)


LABELS = torch.arange(40) % 2
IMAGES = (LABELS.view(-1, 1, 1, 1) * 255).to(torch.uint8).expand(40, 1, 4, 4).contiguous()


@pytest.fixture(scope="module")
def noisy():
    return audit(Noisy(), IMAGES, LABELS)


def test_attacks_that_hardly_matter_are_no_lottery(noisy):
    found = noisy.answers["image"]
    # Judged on fresh draws each time, some 6 % of the images would be lost to each of two dozen attacks: less than half would survive.
    assert found.clean.value - found.worst.value < 0.05
    assert 0.8 < found.clean.value < 1
    assert "WEAK ATTACK" not in noisy.answers["image"].belief


def test_the_same_numbers_whatever_was_drawn_before_and_nothing_drawn_for_others(noisy):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    again = audit(Noisy(), IMAGES, LABELS)
    assert torch.equal(torch.get_rng_state(), before)

    def timeless(value):
        if isinstance(value, dict):
            return {name: timeless(part) for name, part in value.items() if name != "seconds"}
        return [timeless(part) for part in value] if isinstance(value, list) else value

    assert timeless(again.evidence.to_json()) == timeless(noisy.evidence.to_json())


@pytest.fixture
def coded():
    torch.manual_seed(1)
    images = torch.randint(0, 256, (24, 3, 32, 32), dtype=torch.uint8)
    return Subject(SpikingClassifier(TinyNetwork(10)).eval(), RateEncoder(3), images, torch.arange(24) % 10, 10, 8, 0, random=True)


def test_an_image_is_judged_by_draws_of_its_own_whoever_is_beside_it(coded):
    x, _ = PIXELS.inputs(coded, [5, 2, 9])
    together = coded.judge(PIXELS.target(coded, coded.generator(1)), x, [5, 2, 9])
    alone = coded.judge(PIXELS.target(coded, coded.generator(2)), x[2:], [9])
    assert torch.equal(together[2:], alone)
    draws = coded.generator(30, 9)
    means = torch.stack([coded.classifier(coded.encoder(x[2:], draws)) for _ in range(JUDGE_DRAWS)]).mean(0)
    assert torch.allclose(alone, means), "ten draws of that image's own generator"


def test_without_an_attack_the_same_draws_judge(coded):
    nothing = Noise(eps=0.0, draws=1)
    hits = clean_hits(coded)
    for number, batch in enumerate(coded.batches(list(range(24)))):
        record = attack_batch(coded, PIXELS, nothing, batch, (1, number))
        assert record["fooled"] == [not hits[place] for place in batch]


def test_a_random_code_shows_an_image_always_as_the_same_spikes(coded):
    assert torch.equal(SPIKES.inputs(coded, [3, 4])[0][1], SPIKES.inputs(coded, [4])[0][0])


def test_a_transfer_attack_does_not_hang_on_the_batches_before(coded):
    source = PIXELS.target(coded, coded.generator(10))
    attack = Transfer(source, PGD(steps=2), eps=8 / 255)
    crafted = []

    class Looked(Transfer):
        def __call__(self, *arguments):
            crafted.append(super().__call__(*arguments))
            return crafted[-1]

    looked = Looked(source, attack.attack, eps=attack.eps)
    for key in ((1, 0), (1, 1), (1, 1)):
        attack_batch(coded, PIXELS, looked, [4, 6], key)
    assert torch.equal(crafted[1], crafted[2])

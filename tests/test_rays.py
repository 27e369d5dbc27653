"""RayS: cases worked by hand, all directions tried, and what it may not see."""

from itertools import product

import pytest
import torch
from torch import nn

from snn_sparsity.attacks import PGD, RayS
from snn_sparsity.attacks.metering import Meter, Metered
from snn_sparsity.attacks.rays import block
from snn_sparsity.validation import InputError
from tests.test_attack_oracles import Recorded, generator, images, networks

LABELS = torch.tensor([0, 1, 2, 3, 4, 0])


class Spikes(Recorded):
    """A target whose inputs need be no grey levels."""

    space = "spikes"


def linear(weights, bias):
    """Two classes: the first wins where ``weights x < bias``."""
    return lambda x: torch.stack([torch.zeros(len(x), dtype=x.dtype), x.flatten(1) @ weights - bias], 1)


# By hand -------------------------------------------------------------------------------------------------------------------


def test_two_pixels_by_hand():
    # From (100, 100), the second class wins where the first pixel is more than six levels above the second: (103 + 1, 97) or (103, 97 - 1).
    target = Recorded(linear(torch.tensor([255.0, -255.0]), 6.5))
    x = torch.full((1, 1, 1, 2), 100 / 255)
    found = RayS(eps=8 / 255, queries=30)(target, x, torch.tensor([0]), generator())
    assert (255 * found).round().flatten().tolist() == [108, 92]
    # All ones, all minus ones: never wrong. Then only the first pixel up; the edge of the ball; and there it ends.
    asked = [(255 * each).round().flatten().tolist() for each in target.asked]
    assert asked == [[100, 100], [255, 255], [255, 0], [108, 92]]


def test_a_radius_between_two_levels_moves_a_share_of_the_pixels():
    target = Recorded(linear(torch.ones(1000), 5 * 1000 / 255))
    x = torch.zeros(1, 1, 10, 100)
    found = RayS(eps=4 / 255, queries=12)(target, x, torch.tensor([0]), generator())
    assert (255 * found).max() == pytest.approx(4)  # wrong from 5 levels on: out of reach
    between = [sorted((255 * each).round().unique().tolist()) for each in target.asked[3:]]
    assert all(len(levels) == 1 or levels[1] - levels[0] == 1 for levels in between)
    assert any(len(levels) == 2 for levels in between)


def test_what_is_no_closer_is_not_kept():
    # The second pixel hardly counts: without it the radius is a hundred-thousandth larger.
    weights = torch.tensor([1.0, 1e-5])
    found = RayS(eps=0.1, queries=40)(Spikes(linear(weights, 0.2)), torch.zeros(1, 2), torch.tensor([0]), generator())
    assert found.tolist() == [[pytest.approx(0.1), pytest.approx(0.1)]]


# All directions ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_on_a_linear_network_it_finds_the_nearest_of_all_directions(seed):
    weights = torch.randn(8, generator=generator(seed), dtype=torch.float64)
    x = torch.full((1, 8), 0.5, dtype=torch.float64)
    away = 0.2 * weights.abs().sum()
    function = linear(weights, weights.sum() / 2 + away)
    corners = torch.tensor(list(product([-1.0, 1.0], repeat=8)), dtype=torch.float64)
    nearest = min(away / (weights @ corner) for corner in corners if weights @ corner > 0).item()
    assert nearest == pytest.approx(0.2)
    for eps, fooled in ((0.199, False), (0.21, True)):
        found = RayS(eps=eps, queries=400)(Spikes(function), x, torch.tensor([0]), generator())
        assert bool(function(found).argmax(1)) is fooled


def test_blocks_cover_each_stage_once():
    for length in (1, 5, 8, 13):
        flips = iter(range(10**6))
        for stage in range((length - 1).bit_length() + 1):
            covered = [place for _ in range(2**stage) for place in range(length)[block(next(flips), length)]]
            assert covered == list(range(length))


# What it may not see -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Recorded, Spikes])
def test_only_the_winner_counts(kind):
    network, x = networks()["linear"], (255 * images()).round() / 255
    labels = network(x).argmax(1)

    def winner(x):
        return nn.functional.one_hot(network(x).argmax(1), 5).float()

    attack = RayS(eps=32 / 255, queries=200)
    from_logits, from_winners = (attack(kind(function), x, labels, generator()) for function in (network, winner))
    assert torch.equal(from_logits, from_winners)
    assert (network(from_winners).argmax(1) != labels).any()
    # A gradient of such a network is 0: this is what the attack is for.
    assert torch.equal(PGD(random_start=False)(kind(lambda x: winner(x) + 0 * x.sum()), x, labels), x)


def test_a_sample_does_not_depend_on_its_batch():
    cnn, x = networks()["cnn"].double(), (255 * images(dtype=torch.float64)).round() / 255
    labels = cnn(x).argmax(1)
    attack = RayS(eps=16 / 255, queries=60)
    together = attack(Recorded(cnn), x, labels, generator())
    alone = [attack(Recorded(cnn), x[place, None], labels[place, None], generator()) for place in range(len(x))]
    assert torch.equal(together, torch.cat(alone))


def test_each_sample_gets_its_queries_and_those_already_wrong_one():
    cnn, x = networks()["cnn"], (255 * images()).round() / 255
    labels = cnn(x).argmax(1)
    target = Recorded(cnn)
    RayS(eps=1 / 255, queries=40)(target, x, labels, generator())
    assert sum(map(len, target.asked)) == 40 * len(x)  # at one level nothing is found
    target = Recorded(cnn)
    found = RayS(queries=40)(target, x, (labels + 1) % 5, generator())
    assert torch.equal(found, x)
    assert sum(map(len, target.asked)) == len(x)


def test_images_are_8_bit_images_and_in_the_ball():
    cnn, x = networks()["cnn"], (255 * images()).round() / 255
    target = Recorded(cnn)
    found = RayS(queries=100)(target, x, cnn(x).argmax(1), generator())
    for asked in [*target.asked, found]:
        torch.testing.assert_close(255 * asked, (255 * asked).round(), rtol=0, atol=1e-4)
    assert (found - x).abs().max() <= 8 / 255 + 1e-6


def test_what_it_looks_at_outside_the_ball_is_no_silent_failure():
    x, labels, attack = torch.zeros(6, 1, 4, 4), torch.zeros(6, dtype=torch.long), RayS(eps=1 / 255, queries=20)
    ball, everywhere = Meter(labels, x, attack.eps), Meter(labels)
    for meter in (ball, everywhere):
        attack(Metered(Recorded(linear(torch.ones(16), 8.0)), meter), x, labels, generator())
    assert everywhere.fooled.any()
    assert not ball.fooled.any()


@pytest.mark.parametrize(("attack", "wrong"), [(lambda: RayS(queries=0), "queries=0"), (lambda: RayS(eps=-1), "eps=-1")])
def test_bad_settings_are_refused(attack, wrong):
    with pytest.raises(InputError, match=wrong):
        attack()


def test_between_two_grey_levels_there_is_no_image():
    with pytest.raises(InputError, match="12.75 grey levels"):
        RayS(eps=0.05)(Recorded(lambda x: x.flatten(1)), images(), LABELS)

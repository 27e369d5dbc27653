"""Noise, Auto-PGD, SA-PGD and Square: cases worked by hand, properties, and networks that give an attack nothing to hold."""

import pytest
import torch
from torch import nn

from snn_sparsity.attacks import APGD, SAPGD, Noise, Square
from snn_sparsity.attacks.apgd import checkpoints, targeted_difference_of_logits_ratio
from snn_sparsity.attacks.base import margin
from snn_sparsity.attacks.lattice import random_levels
from snn_sparsity.attacks.targets import SpikeTarget
from snn_sparsity.validation import InputError
from tests.test_attack_oracles import Recorded, generator, images, networks

EPS = 8 / 255
NEW = [
    Noise(draws=3),
    Noise(kind="corners"),
    Noise(draws=3, kind="levels"),
    APGD(steps=6),
    APGD(steps=6, loss="dlr", random_start=False),
    APGD(steps=6, loss="targeted"),
    SAPGD(steps=6),
    SAPGD(steps=6, loss="margin"),
    Square(queries=12),
    Square(queries=12, lattice=True),
]
BY_GRADIENT = [APGD(steps=6, random_start=False), APGD(steps=6, loss="targeted", random_start=False), SAPGD(steps=6)]
everything = pytest.mark.parametrize("attack", NEW, ids=str)
LABELS = torch.tensor([0, 1, 2, 3, 4, 0])


@pytest.fixture(scope="module")
def cnn():
    return networks()["cnn"]


# By hand -------------------------------------------------------------------------------------------------------------------


def test_five_looks_of_apgd_on_a_parabola_by_hand():
    # With label 0 the margin loss is -(x - 0.6)^2, the ball [0.25, 0.75], the first step length 0.5, the checkpoints 2, 3, 4, ...
    target = Recorded(lambda x: torch.cat([torch.zeros_like(x), -((x - 0.6) ** 2)], 1))
    x = torch.tensor([[0.5]], dtype=torch.float64)
    attacked = APGD(eps=0.25, steps=10, loss="margin", random_start=False)(target, x, torch.tensor([0]))
    # 0.5 + 0.5, cut to 0.75; then 3/4 of a step to the lower end and a quarter of the step before: 0.75 - 0.375 + 0.0625.
    # No rise: the step halves, and from 0.5, the best so far, 3/4 of it to 0.75 and a quarter of the way from 0.75 back: 0.625.
    # A rise: on from there, 0.625 - 0.1875 + 0.03125.
    assert [asked.item() for asked in target.asked[:5]] == pytest.approx([0.5, 0.75, 0.4375, 0.625, 0.46875], abs=1e-12)
    assert abs(attacked.item() - 0.6) <= abs(0.625 - 0.6)


def test_checkpoints_by_hand():
    assert checkpoints(1) == [1]
    assert checkpoints(10) == [2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert checkpoints(50) == [11, 21, 30, 38, 45]


def test_targeted_loss_by_hand():
    logits = torch.tensor([[4.0, 1.0, 3.0, 2.0, 0.0], [0.0, 1.0, 2.0, 3.0, 4.0]])
    # (1 - 4) / (4 - (2 + 1) / 2) and (4 - 0) / (4 - (2 + 1) / 2)
    found = targeted_difference_of_logits_ratio(logits, torch.tensor([0, 0]), torch.tensor([1, 4]))
    torch.testing.assert_close(found, torch.tensor([-1.2, 1.6]))


def test_targeted_never_aims_at_the_label():
    # The label 0 is runner-up already: the loss towards it would be 0 everywhere.
    target, x = Recorded(lambda x: 10 * x), torch.tensor([[0.55, 0.6, 0.2, 0.1, 0.05]])
    APGD(eps=0.05, steps=1, loss="targeted", random_start=False)(target, x, torch.tensor([0]))
    assert not torch.equal(target.asked[-1], x)


def test_the_first_step_of_sapgd_by_hand():
    # The gradient of the margin is (3, -1) everywhere: over its mean (1.5, -0.5), squared over its mean square (1.8, 0.2).
    target = Recorded(lambda x: torch.stack([torch.zeros(len(x), dtype=x.dtype), 3 * x[:, 0] - x[:, 1]], 1))
    x = torch.tensor([[0.5, 0.5]], dtype=torch.float64)
    SAPGD(eps=0.5, steps=1, loss="margin")(target, x, torch.tensor([0]))
    # 1.5 / sqrt(1.8) and 0.5 / sqrt(0.2) are both 1.118: cut to the step length.
    assert target.asked[1].tolist() == [[1.0, 0.0]]


def test_levels_are_whole_and_each_is_as_likely():
    x = torch.zeros(20000)
    levels = 255 * random_levels(x, 2 / 255, generator())
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-5)
    counts = torch.stack([(levels.round() == level).sum() for level in (-2, -1, 0, 1, 2)])
    assert counts.sum() == 20000
    assert ((counts - 4000).abs() < 250).all()  # 4.4 standard deviations


def test_one_pixel_is_fooled_from_inside_the_ball_only_on_the_lattice():
    # Label 0 loses only three levels above the image, where no corner is.
    x = torch.full((1, 1, 1, 1), 100 / 255)
    target = Recorded(lambda x: torch.cat([torch.zeros_like(x).flatten(1), 1 - 2 * (255 * x - 103).abs().flatten(1)], 1))
    labels = torch.tensor([0])
    corners, lattice = (Square(queries=100, lattice=lattice)(target, x, labels) for lattice in (False, True))
    assert (255 * corners).item() == pytest.approx(108, abs=1e-3)
    assert (255 * lattice).item() == pytest.approx(103, abs=1e-3)


# Properties ----------------------------------------------------------------------------------------------------------------


@everything
def test_inside_ball_and_bounds_and_the_global_random_state_untouched(attack, cnn):
    x, before = images(), torch.get_rng_state()
    target = Recorded(cnn)
    attacked = attack(target, x, LABELS)
    for asked in [*target.asked, attacked]:
        assert 0 <= asked.min() <= asked.max() <= 1
        if len(asked) == len(x):
            assert (asked - x).abs().max() <= EPS + 1e-6
    assert (attacked - x).abs().max() > EPS / 2
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(attacked, attack(target, x, LABELS))


@everything
def test_the_best_point_looked_at_is_returned(attack, cnn):
    x, target = images(), Recorded(cnn)
    attacked = attack(target, x, LABELS, generator(5))
    reached = margin(cnn(attacked), LABELS)
    # The clean look of the targeted loss is no candidate.
    looks = target.asked[1 if isinstance(attack, APGD) and attack.loss == "targeted" else 0 :]
    looked = [margin(cnn(asked), LABELS) for asked in looks if len(asked) == len(x)]
    assert (reached >= torch.stack(looked).amax(0) - 1e-5).all()


@everything
def test_the_same_inside_inference_mode(attack, cnn):
    outside = attack(Recorded(cnn), images(), LABELS)
    with torch.inference_mode():
        inside = attack(Recorded(cnn), images(), LABELS.clone())
    assert torch.equal(inside, outside)


def test_more_draws_are_at_least_as_good_and_differ_without_a_generator(cnn):
    one, many = (margin(cnn(Noise(draws=draws)(Recorded(cnn), images(), LABELS)), LABELS) for draws in (1, 20))
    assert (many >= one).all()
    assert (many > one).any()


@pytest.mark.parametrize("kind", ["corners", "levels"])
def test_noise_of_a_kind(kind, cnn):
    x = images() * 0.8 + 0.1
    change = 255 * (Noise(kind=kind)(Recorded(cnn), x, LABELS) - x)
    torch.testing.assert_close(change, change.round(), rtol=0, atol=1e-4)
    values = set(change.round().int().flatten().tolist())
    assert values == ({-8, 8} if kind == "corners" else set(range(-8, 9)))


@pytest.mark.parametrize("lattice", [False, True])
def test_square_changes_one_square_at_a_time_by_corners_or_levels(lattice):
    # Every query is worse than the stripes: each is the stripes and one square.
    worse = iter(range(1000))
    target = Recorded(lambda x: torch.tensor([[100.0 + next(worse), 0.0]]))
    x = images(1) * 0.8 + 0.1
    Square(queries=40, share=0.25, lattice=lattice)(target, x, torch.tensor([0]), generator())
    stripes, *tried = (255 * (asked - x) for asked in target.asked)
    torch.testing.assert_close(stripes, stripes[:, :, :1].expand_as(x), rtol=0, atol=1e-4)
    areas = []
    for change in tried:
        torch.testing.assert_close(change, change.round(), rtol=0, atol=1e-4)
        assert set(change.round().int().flatten().tolist()) <= (set(range(-8, 9)) if lattice else {-8, 8})
        touched = ((change - stripes).abs() > 0.5).any(1)[0]
        height, width = ((places := touched.any(dim).nonzero()).max() - places.min() + 1 if touched.any() else 0 for dim in (1, 0))
        areas.append(int(height * width))
    # 8 pixels wide at first, later round(16 sqrt(1/8)) = 6; a column whose stripes already had the value drawn does not show.
    big = areas[::2] if lattice else areas
    assert max(big[: len(big) // 4]) == 64
    assert max(big[len(big) // 3 :]) == 36
    assert not lattice or max(areas[1::2]) == 1


def test_square_takes_the_time_steps_of_spikes_as_channels():
    spikes = torch.randint(0, 2, (4, 5, 3, 8, 8), generator=generator(8)).float()
    weights = torch.randn(4, 960, generator=generator(9))
    labels = (spikes.flatten(1) @ weights.T).argmax(1)
    attacked, flat = (
        Square(eps=0.1, queries=30)(Recorded(lambda x: x.flatten(1) @ weights.T), x, labels, generator())
        for x in (spikes, spikes.flatten(1, 2))
    )
    assert torch.equal(attacked.flatten(1, 2), flat)
    assert not torch.equal(attacked, spikes)


# Nothing to hold -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", BY_GRADIENT, ids=str)
def test_a_zero_gradient_leaves_x_unchanged(attack):
    x, lead = images(), torch.arange(5.0)
    dead = Recorded(lambda x: (x * 0).flatten(1)[:, :5] + lead)
    assert torch.equal(attack(dead, x, LABELS), x)
    assert all(torch.equal(asked, x) for asked in dead.asked)


@everything
@pytest.mark.parametrize("logits", [0.0, float("nan"), float("inf"), 7.0])
def test_dead_and_broken_networks_give_points_of_the_ball(logits, attack):
    x = images()
    attacked = attack(Recorded(lambda x: (x * 0).flatten(1)[:, :5] + logits), x, LABELS)
    # Where every input is as broken as every other, which of them is returned is nobody's business.
    assert (attacked - x).abs().max() <= EPS + 1e-6


@pytest.mark.parametrize("attack", BY_GRADIENT, ids=str)
def test_a_dead_or_broken_sample_does_not_change_another(attack, cnn):
    x = images()
    alone = attack(Recorded(cnn), x[:4], LABELS[:4])
    factor = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0, float("nan")])[:, None]
    together = attack(Recorded(lambda x: cnn(x) * factor[-len(x) :]), x, LABELS)
    torch.testing.assert_close(together[:4], alone)
    assert torch.equal(together[4:], x[4:])


@pytest.mark.parametrize("attack", [*BY_GRADIENT, APGD(steps=6, loss="dlr")], ids=str)
def test_two_equal_draws_of_a_random_network_are_one(attack, cnn):
    twice = Recorded(lambda x: torch.stack([cnn(x), cnn(x)]) if x.requires_grad else cnn(x))
    assert torch.equal(attack(twice, images(), LABELS), attack(Recorded(cnn), images(), LABELS))


@everything
def test_samples_already_wrong_are_attacked_like_others(attack, cnn):
    x = images()
    wrong = cnn(x).argmin(1)
    attacked = attack(Recorded(cnn), x, wrong)
    assert (attacked - x).abs().max() <= EPS + 1e-6
    assert (cnn(attacked).argmax(1) != wrong).all()


@pytest.mark.parametrize("attack", [Noise(), APGD(steps=3), APGD(steps=3, loss="margin"), SAPGD(steps=3), Square(queries=5)], ids=str)
def test_two_classes_are_enough(attack):
    target = Recorded(nn.Sequential(nn.Flatten(), nn.Linear(768, 2)))
    assert (attack(target, images(), LABELS % 2) - images()).abs().max() > EPS / 2


@pytest.mark.parametrize(
    ("classes", "attack", "message"),
    [
        (2, APGD(loss="dlr"), "at least 3 classes, there are 2"),
        (2, SAPGD(loss="dlr"), "at least 3 classes, there are 2"),
        (2, APGD(loss="targeted"), "at least 4 classes, there are 2"),
        (3, APGD(loss="targeted"), "at least 4 classes, there are 3"),
        (5, APGD(loss="targeted", rank=6), "rank=6 needs at least 6 classes, there are 5"),
    ],
    ids=str,
)
def test_too_few_classes_are_refused(classes, attack, message):
    with pytest.raises(InputError, match=message):
        attack(Recorded(lambda x: x.flatten(1)[:, :classes]), images(), LABELS % classes)


@pytest.mark.parametrize("attack", [Noise(kind="levels"), Square(lattice=True)], ids=str)
def test_grey_levels_are_for_images(attack, classifier):
    spikes = torch.zeros(1, 2, 3, 32, 32)
    with pytest.raises(InputError, match="space='image'"):
        attack(SpikeTarget(classifier), spikes, torch.tensor([0]))


def test_square_is_for_images():
    with pytest.raises(InputError, match=r"shape \[6, 768\]"):
        Square()(Recorded(lambda x: x), images().flatten(1), LABELS)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (Noise, {"eps": -0.1}),
        (Noise, {"draws": 0}),
        (Noise, {"kind": "gaussian"}),
        (Noise, {"eps": 0.05, "kind": "levels"}),
        (APGD, {"eps": float("nan")}),
        (APGD, {"steps": 0}),
        (APGD, {"loss": "cw"}),
        (APGD, {"rank": 1}),
        (APGD, {"rho": 1.5}),
        (SAPGD, {"eps": -1}),
        (SAPGD, {"steps": 2.5}),
        (SAPGD, {"loss": "targeted"}),
        (Square, {"eps": -1}),
        (Square, {"queries": 0}),
        (Square, {"share": 0}),
        (Square, {"share": 1.1}),
        (Square, {"eps": 0.05, "lattice": True}),
    ],
    ids=str,
)
def test_bad_settings_are_refused(kind, wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        kind(**wrong)

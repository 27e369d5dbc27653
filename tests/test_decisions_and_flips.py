"""HopSkipJump on the lattice, flips of spikes, mixtures of surrogates and R-FGSM: by hand, properties, brute force, foolbox."""

from itertools import chain, combinations
from itertools import count as count_from
from types import SimpleNamespace

import foolbox
import pytest
import torch
from torch import nn

from snn_sparsity.attacks import BPDA, EOT, FGSM, MDSE, PGD, CodeBookAscent, HopSkipJump, RandomFlips, SpikeFlips
from snn_sparsity.attacks.base import input_gradient, margin
from snn_sparsity.attacks.hopskipjump import _Walk
from snn_sparsity.attacks.mdse import Mixed, Weights
from snn_sparsity.attacks.targets import ImageTarget, SpikeTarget
from snn_sparsity.classifier import SpikingClassifier
from snn_sparsity.encoders import PhaseEncoder
from snn_sparsity.gradient_rules import SurrogateShape
from snn_sparsity.validation import InputError
from tests.test_attack_oracles import Recorded, generator
from tests.tiny import TinyNetwork

EPS = 8 / 255


def grey(count=4, size=8, low=60, high=196, seed=2):
    return torch.randint(low, high, (count, 3, size, size), generator=generator(seed)) / 255


def linear(x, distances):
    """Two logits; the label 0 of each image loses just beyond a distance of its own, in grey levels, along the weights' signs."""
    weights = torch.randn(x[0].numel(), generator=generator(5))
    bias = (x.flatten(1) @ weights) + torch.tensor(distances) / 255 * weights.abs().sum()

    def logits(other, rows=None):
        score = other.flatten(1) @ weights - (bias if rows is None else bias[rows])
        return torch.stack([torch.zeros_like(score), score], 1)

    return weights, logits


# HopSkipJump -----------------------------------------------------------------------------------------------------------------


def test_all_that_is_tried_are_8_bit_images_within_the_budget():
    x = grey()
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(216, 4))
    labels = network(x).argmax(1)
    target = Recorded(network)
    attacked = HopSkipJump(eps=1 / 255, queries=150)(target, x, labels, generator())
    assert sum(len(asked) for asked in target.asked) <= 150 * len(x)
    for asked in [*target.asked, attacked]:
        torch.testing.assert_close(255 * asked, (255 * asked).round(), rtol=0, atol=1e-3)
        assert 0 <= asked.min() <= asked.max() <= 1
    assert (attacked - x).abs().max() <= 1 / 255 + 1e-6


@pytest.mark.parametrize(("distance", "fooled"), [(5.5, True), (7.9, False)])
def test_the_distance_of_a_linear_model_is_found(distance, fooled):
    # Within 6.5 levels, 1.18 times 5.5, it is found; what is farther than the ball cannot be.
    x = grey(1, size=4)
    _, logits = linear(x, [distance])
    attacked = HopSkipJump(eps=7 / 255, queries=4000)(Recorded(logits), x, torch.tensor([0]), generator())
    assert bool(logits(attacked).argmax(1) == 1) is fooled


def test_one_pixel_by_hand():
    # Class 1 wins from level 107 on; the image is at 100: 7 levels, and not 6.
    x = torch.full((1, 1, 1, 1), 100 / 255)
    target = Recorded(lambda x: torch.cat([torch.zeros_like(x).flatten(1), 255 * x.flatten(1) - 106.5], 1))
    for eps, level in ((7 / 255, 107), (6 / 255, 106)):
        attacked = HopSkipJump(eps=eps, queries=200)(target, x, torch.tensor([0]), generator())
        assert round(255 * attacked.item()) == level


def distances(logits, x, labels, queries):
    """How near HopSkipJump comes, in units of x."""
    with torch.no_grad():
        walk = _Walk(HopSkipJump(eps=1 / 255, queries=queries), Recorded(logits), x, labels, generator())
        walk.start()
        numbers = count_from(1)
        while len(left := walk.left()):
            walk.hop(left, next(numbers))
    return walk.radius


def test_it_comes_as_near_as_foolbox_s_does_without_a_lattice():
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 4)).eval()
    x, labels = grey(8, seed=4), torch.zeros(8, dtype=torch.long)
    with torch.no_grad():  # some twenty grey levels away
        network[3].bias[0] -= (network(x)[:, 0] - network(x)[:, 1:].amax(1)).min() - 0.05
    asked = []
    count = network.register_forward_pre_hook(lambda _, inputs: asked.append(len(inputs[0])))
    model = foolbox.PyTorchModel(network, bounds=(0, 1))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        attack = foolbox.attacks.HopSkipJumpAttack(
            steps=12, initial_gradient_eval_steps=20, max_gradient_eval_steps=1500, constraint="linf", gamma=100.0,
            init_attack=foolbox.attacks.LinearSearchBlendedUniformNoiseAttack(steps=50),
        )  # fmt: skip
        theirs, _, success = attack(model, x, labels, epsilons=None)
    assert success.all()
    theirs = (theirs - x).abs().flatten(1).amax(1)
    count.remove()
    ours = distances(network, x, labels, queries=sum(asked) // len(x))
    # Measured: 15 levels, foolbox's 19.
    assert ours.median() <= theirs.median()


def test_hopskipjump_wants_whole_levels_and_numbers_in_range():
    with pytest.raises(InputError, match="grey levels"):
        HopSkipJump(eps=0.05)(Recorded(lambda x: x.flatten(1)[:, :2]), grey(), torch.zeros(4, dtype=torch.long))
    for wrong in ({"queries": 0}, {"probes": 0}, {"eps": -1}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            HopSkipJump(**wrong)


@pytest.mark.parametrize("logits", [0.0, float("nan")])
def test_a_network_that_says_one_thing_only_is_left_alone(logits):
    x = grey()
    target = Recorded(lambda x: torch.stack([torch.full((len(x),), logits), torch.full((len(x),), logits - 1)], 1))
    assert torch.equal(HopSkipJump(queries=40)(target, x, torch.zeros(4, dtype=torch.long)), x)


def second_of_two(attack, target, x):
    """What becomes of the first image behind each of the others, which are right, or wrong from the start."""
    labels = target.function(x).argmax(1)
    pairs = [(x[[place, 0]], labels[[place, 0]]) for place in range(1, len(x))]
    pairs += [(both, (names + torch.tensor([1, 0])) % 5) for both, names in pairs]
    return [attack(target, both, names, generator())[1] for both, names in pairs]


def test_a_hopskipjump_does_not_depend_on_its_neighbours():
    x = grey(9).double()
    weights = torch.randn(192, 5, generator=generator(6), dtype=torch.float64)
    found = second_of_two(HopSkipJump(eps=4 / 255, queries=200), Recorded(lambda x: (x.flatten(1) - 0.5) @ weights), x)
    assert all(torch.equal(found[0], other) for other in found)
    assert not torch.equal(found[0], x[0])


# Flips -----------------------------------------------------------------------------------------------------------------------


def trains(count=5, steps=4, seed=1):
    return torch.randint(0, 2, (count, steps, 3, 4, 4), generator=generator(seed)).float()


def spiking(function):
    target = Recorded(function)
    target.space = "spikes"
    return target


@pytest.fixture(scope="module")
def spike_target():
    torch.manual_seed(0)
    return SpikeTarget(SpikingClassifier(TinyNetwork()).eval())


@pytest.mark.parametrize("attack", [SpikeFlips(steps=3), SpikeFlips(steps=5, random_start=True), RandomFlips(queries=30)], ids=str)
@pytest.mark.parametrize("flips", [1, 7, 5000])
def test_what_is_tried_are_spike_trains_within_the_budget(attack, flips):
    x, weights = trains(), torch.randn(192, 4, generator=generator(3))
    target = spiking(lambda x: torch.tanh(x.flatten(1) @ weights))
    attack = type(attack)(**{**vars(attack), "flips": flips})
    attacked = attack(target, x, target.function(x).argmax(1), generator())
    for asked in [*(one for one in target.asked if len(one) == len(x)), attacked]:
        assert set(asked.unique().tolist()) <= {0.0, 1.0}
        assert (asked != x).flatten(1).sum(1).max() <= flips
    assert (attacked != x).any()


def test_random_flips_do_not_depend_on_their_neighbours():
    x = trains(9).double()
    weights = torch.randn(192, 5, generator=generator(6), dtype=torch.float64)
    found = second_of_two(RandomFlips(flips=6, queries=60), spiking(lambda x: (x.flatten(1) - 0.5) @ weights), x)
    assert all(torch.equal(found[0], other) for other in found)
    assert not torch.equal(found[0], x[0])


def subsets(size, most):
    return chain.from_iterable(combinations(range(size), count) for count in range(most + 1))


def brute_force(logits, x, labels, flips):
    """The largest margin of any spike train within so many flips."""
    best = torch.full((len(x),), float("-inf"))
    for chosen in subsets(x[0].numel(), flips):
        tried = x.clone()
        tried[:, list(chosen)] = 1 - tried[:, list(chosen)]
        best = best.maximum(margin(logits(tried), labels))
    return best


@pytest.mark.parametrize("flips", [1, 2, 3])
def test_on_a_linear_functional_flips_are_brute_force(flips):
    x = torch.randint(0, 2, (6, 9), generator=generator(7)).float()
    weights = torch.randn(9, 2, generator=generator(8))
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    expected = brute_force(lambda x: x @ weights, x, labels, flips)
    for attack in (SpikeFlips(flips=flips, steps=4), RandomFlips(flips=flips, queries=800)):
        found = margin(attack(spiking(lambda x: x @ weights), x, labels, generator()) @ weights, labels)
        if isinstance(attack, SpikeFlips):
            torch.testing.assert_close(found, expected)
        else:  # it stops at the first success, and always uses all its flips
            assert torch.equal(found > 0, expected > 0)


def test_three_steps_of_flips_by_hand():
    # Margin 2a - b - 3c of spikes (a, b, c) with label 0, from (0, 1, 1): a and c and b gain 2, 1 and 3.
    weights = torch.tensor([[0.0, 2.0], [0.0, -1.0], [0.0, -3.0]])
    target = spiking(lambda x: x @ weights)
    attacked = SpikeFlips(flips=3, steps=3)(target, torch.tensor([[0.0, 1.0, 1.0]]), torch.tensor([0]))
    assert [asked.tolist()[0] for asked in target.asked] == [[0, 1, 1], [0, 1, 0], [1, 1, 0], [1, 0, 0]]
    assert attacked.tolist() == [[1, 0, 0]]


def test_flips_beat_random_ones_on_a_spiking_network(spike_target):
    x = torch.randint(0, 2, (6, 4, 3, 16, 16), generator=generator(1)).float()
    labels = spike_target.judge(x).argmax(1)
    gained = [
        (margin(spike_target.judge(attack(spike_target, x, labels, generator())), labels) - margin(spike_target.judge(x), labels)).mean()
        for attack in (SpikeFlips(flips=40), RandomFlips(flips=40, queries=1), RandomFlips(flips=40, queries=60))
    ]
    assert gained[0] > gained[2] > gained[1]


@pytest.mark.parametrize("attack", [SpikeFlips(), RandomFlips()], ids=str)
def test_what_has_no_flips_is_refused_or_left_alone(attack, spike_target):
    x, labels = torch.rand(2, 4, 3, 16, 16), torch.tensor([0, 1])
    with pytest.raises(InputError, match="zeros and ones"):
        attack(spike_target, x, labels)
    with pytest.raises(InputError, match="space='spikes'"):
        attack(ImageTarget(spike_target.network, PhaseEncoder()), x[:, 0], labels)
    whole = x.round()
    assert torch.equal(
        type(attack)(eps=0.99, **{key: 3 for key in ("queries", "steps") if key in vars(attack)})(spike_target, whole, labels), whole
    )
    with pytest.raises(InputError, match="flips"):
        type(attack)(flips=0)


# Mixtures of surrogates --------------------------------------------------------------------------------------------------------


def test_one_rule_alone_is_that_rule(spike_target):
    x = torch.randint(0, 2, (3, 4, 3, 16, 16), generator=generator(1)).float()
    labels, rule = torch.tensor([0, 1, 2]), SurrogateShape("triangle", 0.7)
    host = PGD(steps=4)
    mixed, alone = MDSE(host, (rule,)), BPDA(host, rule)
    assert torch.equal(mixed(spike_target, x, labels, generator()), alone(spike_target, x, labels, generator()))


def gradients(target, x, labels, rules):
    found = []
    for rule in rules:
        with rule.applied(target.network):
            gradient = input_gradient(target.logits, x, labels)[0]
        found.append(gradient / gradient.abs().flatten(1).mean(1).view(-1, 1, 1, 1, 1))
    return found


def test_weights_follow_what_agreed_and_sum_to_one(spike_target):
    rules = (SurrogateShape("atan", 1.0), SurrogateShape("rect", 0.5))
    x = torch.randint(0, 2, (2, 4, 3, 16, 16), generator=generator(1)).float()
    labels, weights = torch.tensor([0, 1]), Weights(rate=2.0)
    mixed = Mixed(spike_target, tuple(rule.applied for rule in rules), weights)
    points = [x, (x + 0.05).clamp(0, 1), (x - 0.05).clamp(0, 1)]
    seen = [input_gradient(mixed.logits, point, labels)[0] for point in points]
    each = [gradients(spike_target, point, labels, rules) for point in points]
    equal = [(first + second) / 2 for first, second in each]
    for found, expected in zip(seen[:2], equal[:2], strict=True):
        torch.testing.assert_close(found, expected)
    # At the third point the second one's mixture judges the first one's directions.
    grown = [torch.exp(2.0 * torch.cosine_similarity(one.flatten(1), equal[1].flatten(1))) for one in each[0]]
    expected = [weight / sum(grown) for weight in grown]
    for mine, theirs in zip(weights.now, expected, strict=True):
        torch.testing.assert_close(mine, theirs)
    assert not torch.allclose(weights.now[0], weights.now[1])


@pytest.mark.parametrize("make", [lambda host: EOT(MDSE(host), draws=2), lambda host: MDSE(EOT(host, draws=2))], ids=["outside", "inside"])
def test_mixtures_and_draws_go_together(make, spike_target):
    x = torch.randint(0, 2, (2, 4, 3, 16, 16), generator=generator(1)).float()
    attack = make(PGD(steps=2))
    assert attack.passes.backwards == 2 * 5 * 2
    assert (attack(spike_target, x, torch.tensor([0, 1])) - x).abs().max() <= EPS + 1e-6


def test_a_mixture_guides_code_book_ascent(spike_target):
    target = ImageTarget(spike_target.network, PhaseEncoder(4))
    x, labels = grey(3, size=16), torch.tensor([0, 1, 2])
    attacked = MDSE(CodeBookAscent(steps=3))(target, x, labels)
    assert (margin(target.judge(attacked), labels) >= margin(target.judge(x), labels)).all()
    torch.testing.assert_close(255 * attacked, (255 * attacked).round(), rtol=0, atol=1e-3)


def test_a_mixture_needs_a_rule():
    for wrong in ({"rules": ()}, {"rate": -1.0}):
        with pytest.raises(InputError):
            MDSE(PGD(), **wrong)


# R-FGSM ------------------------------------------------------------------------------------------------------------------------


def test_r_fgsm_by_hand():
    # Half of eps goes to random signs, and the rest along the gradient's sign where that leads: up in the first entry, down in the second.
    target = SimpleNamespace(
        space="image", bounds=(0.0, 1.0), logits=lambda x: torch.stack([torch.zeros(len(x)), 2 * x[:, 0] - 3 * x[:, 1]], 1)
    )
    x = torch.full((400, 2), 0.5)
    moved = FGSM(eps=0.25, random_start=True)(target, x, torch.zeros(400, dtype=torch.long), generator()) - x
    corners = moved.unique(dim=0).tolist()
    assert corners == [[0.0, -0.25], [0.0, 0.0], [0.25, -0.25], [0.25, 0.0]]


def test_r_fgsm_takes_the_gradient_where_the_random_step_leads():
    # The loss rises towards 0.5 from both sides: from 0.5 +- 0.1 it leads back, whatever the random sign was.
    target = SimpleNamespace(space="image", bounds=(0.0, 1.0), logits=lambda x: torch.cat([torch.zeros_like(x), -((x - 0.5) ** 2)], 1))
    x = torch.full((50, 1), 0.5)
    attacked = FGSM(eps=0.2, random_start=True)(target, x, torch.zeros(50, dtype=torch.long), generator())
    torch.testing.assert_close(attacked, x)
    assert str(FGSM(random_start=True)) == "FGSM(eps=8/255, random_start=True)"

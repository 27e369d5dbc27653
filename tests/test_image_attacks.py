from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based import functional, layer
from torch import nn

from snn_sparsity.attacks import EOT, FGSM, PGD, AnnealedPGD, CodeBookAscent, HopSkipJump, Noise, RayS, Square, Transfer
from snn_sparsity.attacks.base import Passes, margin
from snn_sparsity.attacks.eot import Drawn
from snn_sparsity.attacks.metering import Meter, Metered
from snn_sparsity.attacks.targets import ImageTarget, SpikeTarget
from snn_sparsity.encoders import DirectEncoder, LatencyEncoder, PhaseEncoder, RateEncoder
from snn_sparsity.networks import IFNeuron
from snn_sparsity.validation import InputError
from tests.test_attacks import LinearCode, Plain

EPS = 8 / 255


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class TwoLayers(nn.Module):
    """A random two-layer spiking network: 192 inputs, 256 IF neurons with hard reset, a linear read-out averaged over time."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            layer.Flatten(), layer.Linear(192, 256, bias=False), IFNeuron().build(), layer.Linear(256, 10, bias=False)
        )
        functional.set_step_mode(self, "m")
        for linear in (self.layers[1], self.layers[3]):
            nn.init.normal_(linear.weight, std=2 / linear.in_features**0.5, generator=generator(0))

    def forward(self, spikes):
        functional.reset_net(self)
        logits = self.layers(spikes).mean(0)
        functional.reset_net(self)
        return logits


@pytest.fixture(scope="module")
def two_layers():
    """The network behind a phase code, random images, and its own predictions as labels."""
    target = ImageTarget(TwoLayers(), PhaseEncoder())
    x = torch.randint(0, 256, (32, 3, 8, 8), generator=generator(1)) / 255
    return target, x, target.judge(x).argmax(1)


class StraightThrough:
    """An image target whose phase code has the slope of its decoder, 2^-(1 + t mod 8): the rule to beat."""

    space, bounds = "image", (0.0, 1.0)

    def __init__(self, target):
        self.target = target
        self.slope = torch.exp2(-(1.0 + torch.arange(10) % 8)).view(1, 10, 1, 1, 1)

    def logits(self, x):
        spikes = self.target.encoder(x.detach()).transpose(0, 1)
        return self.target.spikes.logits(spikes + self.slope * (x - x.detach()).unsqueeze(1))


# How strong they are -------------------------------------------------------------------------------------------------------


def test_code_book_ascent_beats_the_box_which_beats_straight_through_which_beats_noise(two_layers):
    target, x, labels = two_layers[0], two_layers[1][:16], two_layers[2][:16]
    clean = margin(target.judge(x), labels)

    def gain(attack, through):
        return (margin(target.judge(attack(through, x, labels, generator(2))), labels) - clean).mean().item()

    pgd = PGD(eps=EPS, alpha=1 / 255, steps=50, random_start=False)
    noise = gain(Noise(eps=EPS, draws=50, kind="levels"), target)
    straight = gain(pgd, StraightThrough(target))
    boxes = [gain(pgd, target.smoothed(width)) for width in (8, 2)]
    annealed = gain(AnnealedPGD(eps=EPS, alpha=1 / 255), target)
    ascent = gain(CodeBookAscent(eps=EPS, steps=50), target)
    # Measured: 0.5 < 0.7 < 1.3 < 1.6 < 1.8 < 3.6.
    assert 0 < noise < straight < min(boxes)
    assert max(boxes) < annealed
    assert ascent >= 1.5 * annealed


def test_momentum_strengthens_code_book_ascent(two_layers):
    target, x, labels = two_layers
    with_it, without = (CodeBookAscent(steps=10, momentum=momentum)(target, x, labels) for momentum in (0.9, 0.0))
    assert margin(target.judge(with_it), labels).mean() > margin(target.judge(without), labels).mean() + 0.1


# Code-book ascent ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", [PhaseEncoder(), PhaseEncoder(weighted=True), LatencyEncoder(6), DirectEncoder(3)], ids=str)
@given(seed=st.integers(0, 2**16), radius=st.integers(0, 255), steps=st.integers(1, 3))
@settings(max_examples=10, deadline=None, derandomize=True)
def test_every_restart_finds_the_optimum_of_a_linear_functional(encoder, seed, radius, steps):
    levels = torch.randint(0, 256, (2, 1, 2, 3), generator=generator(seed))
    weights = torch.randn(encoder.num_steps, 1, 2, 3, generator=generator(seed + 1))
    attack = CodeBookAscent(eps=radius / 255, steps=steps, smallest_fraction=1.0, random_start=True, restarts=2)
    target = LinearCode(encoder, weights)
    asked = recorded(target)
    attack(target, levels / 255, torch.tensor([0, 0]), generator(seed))
    # Every pixel by itself, every level in its ball.
    value = torch.einsum("ct,tihw->cihw", encoder.code_book, weights)
    allowed = (torch.arange(256).view(256, 1, 1, 1, 1) - levels).abs() <= radius
    optimum = value.unsqueeze(1).expand(-1, 2, -1, -1, -1).masked_fill(~allowed, float("-inf")).amax(0)
    assert len(asked) == 2 * (steps + 1)
    for last in (asked[steps], asked[-1]):
        torch.testing.assert_close((last * weights).sum(1), optimum, rtol=1e-5, atol=1e-5)


def recorded(target):
    """Everything that an attack will show to the spikes of a target made for one test."""
    asked, spikes = [], target.spikes

    def logits(x):
        asked.append(x.detach())
        return spikes.logits(x)

    target.spikes = Plain(logits)
    return asked


@pytest.mark.parametrize("random_start", [False, True])
def test_every_iterate_is_an_8_bit_image_in_the_ball(two_layers, random_start):
    classifier, encoder = two_layers[0].network, PhaseEncoder()
    target, x, labels = ImageTarget(classifier, encoder), two_layers[1][:4].clone(), two_layers[2][:4]
    x[0], x[1] = 0, 1
    asked = recorded(target)
    attacked = CodeBookAscent(eps=EPS, steps=5, random_start=random_start, restarts=1 + random_start)(target, x, labels, generator(3))
    assert len(asked) == (12 if random_start else 6)
    for spikes in asked:
        levels = encoder.decode(spikes.transpose(0, 1))
        assert torch.equal(encoder(levels).transpose(0, 1), spikes)
        assert (levels.int() - (255 * x).round().int()).abs().max() <= 8
    assert torch.equal(attacked, (255 * attacked).round() / 255)


def test_a_random_start_comes_from_the_generator_alone(two_layers):
    classifier, x, labels = two_layers[0].network, two_layers[1][:4], two_layers[2][:4]
    attack, starts, results = CodeBookAscent(steps=2, random_start=True, restarts=2), [], []
    before = torch.get_rng_state()
    for seed in (4, 4, 5):
        target = ImageTarget(classifier, PhaseEncoder())
        asked = recorded(target)
        results.append(attack(target, x, labels, generator(seed)))
        starts.append((asked[0], asked[3]))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(results[0], results[1])
    assert not torch.equal(starts[0][0], starts[0][1]), "two restarts begin at the same levels"
    assert not torch.equal(starts[0][0], starts[2][0])


class Scripted:
    """An image target of one pixel and two time steps whose gradients are given in advance, whatever it is shown."""

    space, bounds = "image", (0.0, 1.0)

    def __init__(self, gradients):
        self.code_book = torch.stack([torch.arange(256) % 2, torch.arange(256) // 2 % 2], 1).float()
        self.spikes, self.left = self, iter(gradients)

    def logits(self, x):
        gradient = torch.tensor(next(self.left)).view(1, 2, 1, 1, 1)
        return torch.stack([torch.zeros(1), (x * gradient).sum().view(1)], 1)


@pytest.mark.parametrize(("momentum", "code"), [(0.0, [0.0, 1.0]), (1.0, [1.0, 1.0])])
def test_momentum_by_hand(momentum, code):
    # Over their means the gradients are (1.5, -0.5) and (-1, 1): the last alone wants the code 01, their sum (0.5, 0.5) wants 11.
    target = Scripted([[3.0, -1.0], [-2.0, 2.0], [0.0, 0.0]])
    asked = recorded(target)
    attack = CodeBookAscent(eps=3 / 255, steps=2, momentum=momentum, loss="margin")
    attack(target, torch.full((1, 1, 1, 1), 4 / 255), torch.tensor([0]))
    assert [spikes.flatten().tolist() for spikes in asked] == [[0.0, 0.0], [1.0, 0.0], code]


def test_pixels_without_a_gradient_stay_where_they_are():
    target = Scripted([[0.0, 0.0]] * 3)
    asked = recorded(target)
    CodeBookAscent(eps=3 / 255, steps=2)(target, torch.full((1, 1, 1, 1), 4 / 255), torch.tensor([0]))
    assert [spikes.flatten().tolist() for spikes in asked] == [[0.0, 0.0]] * 3


def test_a_step_moves_no_more_pixels_than_its_fraction(two_layers):
    target = ImageTarget(two_layers[0].network, PhaseEncoder())
    asked = recorded(target)
    CodeBookAscent(steps=3, smallest_fraction=0.01)(target, two_layers[1], two_layers[2])
    moved = [(before != after).any(1).flatten(1).sum(1) for before, after in pairwise(asked)]
    # Of 192 pixels all, a tenth, and a hundredth.
    assert [count.max() <= most for count, most in zip(moved, (192, 19, 2), strict=True)] == [True] * 3
    assert moved[0].min() > 150
    assert moved[1].float().mean() > 15
    assert moved[2].max() == 2


def test_restarts_without_a_random_start_are_refused():
    with pytest.raises(InputError, match="restarts=3 would all do the same"):
        CodeBookAscent(restarts=3)


# Annealed PGD --------------------------------------------------------------------------------------------------------------


def test_each_width_gets_its_share_of_the_steps(two_layers):
    target, x, labels = two_layers
    seen = []

    class Watched(Metered):
        def smoothed(self, half_width):
            seen.append(half_width)
            return super().smoothed(half_width)

    AnnealedPGD(steps=5, widths=(8, 2))(Watched(target, Meter(labels)), x, labels)
    assert seen == [8, 8, 8, 2, 2]


def test_a_single_width_is_pgd_put_on_the_lattice(two_layers):
    target, x, labels = two_layers
    annealed = AnnealedPGD(alpha=0.7 / 255, steps=6, widths=(4,), loss="margin")(target, x, labels)
    plain = PGD(alpha=0.7 / 255, steps=6, random_start=False, loss="margin")(target.smoothed(4), x, labels)
    # PGD does not count the start as a result: where no step helps, the two differ.
    rose = margin(target.judge(plain), labels) > margin(target.judge(x), labels)
    assert rose.sum() >= 28
    assert torch.equal(annealed[rose], ((255 * plain).round() / 255)[rose])


@pytest.mark.parametrize("random_start", [False, True])
def test_annealed_pgd_returns_8_bit_images_in_the_ball(two_layers, random_start):
    target, x, labels = two_layers
    attacked = AnnealedPGD(eps=3 / 255, alpha=0.4 / 255, steps=4, random_start=random_start)(target, x, labels, generator(6))
    assert torch.equal(attacked, (255 * attacked).round() / 255)
    assert ((attacked - x).abs() * 255).round().max() == 3 if random_start else ((attacked - x).abs() * 255).round().max() >= 1
    assert (attacked - x).abs().max() <= 3 / 255 + 1e-6
    assert not torch.equal(attacked, x)


@pytest.mark.parametrize("metered", [False, True])
def test_annealed_pgd_needs_a_smoothed_code(two_layers, metered):
    target = SpikeTarget(two_layers[0].network)
    target = Metered(target, Meter(torch.tensor([0]))) if metered else target
    with pytest.raises(InputError, match="needs space='image' and a target with a smoothed code"):
        AnnealedPGD()(target, torch.zeros(1, 10, 3, 8, 8), torch.tensor([0]))


# EOT over transformation -------------------------------------------------------------------------------------------


WEIGHTS = torch.where(torch.arange(100) % 3 == 0, 1.0, -1.0)


def noisy(spread):
    """A linear model z = (0, w x) whose weights get noise of a standard deviation at each call."""

    def logits(x):
        value = (x * (WEIGHTS + spread * torch.randn(100))).sum(1)
        return torch.stack([torch.zeros_like(value), value], 1)

    return Plain(logits)


@pytest.mark.parametrize(("draws", "least", "most"), [(1, 0.4, 0.75), (400, 1.0, 1.0)])
def test_many_draws_find_the_sign_that_one_draw_does_not(draws, least, most):
    x = torch.full((1, 100), 0.5)
    with torch.random.fork_rng([]):
        torch.manual_seed(7)
        attacked = EOT(FGSM(loss="margin"), draws=draws, eps=0.25)(noisy(5.0), x, torch.tensor([0]))
    found = ((attacked - x).sign() == WEIGHTS).float().mean().item()
    assert least <= found <= most


def test_gradients_see_all_draws_and_looks_see_their_mean():
    draws = [torch.tensor([[1.0, 4.0]]), torch.tensor([[3.0, 0.0]])]
    answers = iter([*draws, *draws])
    drawn = Drawn(Plain(lambda x: next(answers) + 0 * x), 2)
    assert torch.equal(drawn.logits(torch.zeros(1, 1, requires_grad=True)), torch.stack(draws))
    assert drawn.logits(torch.zeros(1, 1)).tolist() == [[2.0, 2.0]]


def test_a_target_of_draws_passes_through_everything_an_attack_may_ask(two_layers):
    target = two_layers[0]
    drawn = Drawn(target, 3)
    assert (drawn.space, drawn.bounds, drawn.network) == ("image", (0.0, 1.0), target.network)
    assert drawn.code_book is target.code_book
    assert (drawn.smoothed(4).target.half_width, drawn.smoothed(4).draws, drawn.spikes.draws) == (4, 3, 3)
    assert drawn.spikes.target is target.spikes
    assert Drawn(target.spikes, 3).code_book is None


@pytest.mark.parametrize("inner", [PGD(steps=3), CodeBookAscent(steps=3), AnnealedPGD(steps=3)], ids=str)
def test_draws_of_a_network_without_randomness_change_nothing(two_layers, inner):
    target, x, labels = (part if part is two_layers[0] else part[:4] for part in two_layers)
    attacked = EOT(inner, draws=2)(target, x, labels, generator(8))
    torch.testing.assert_close(attacked, inner(target, x, labels, generator(8)), rtol=0, atol=0)


def test_draws_of_a_random_code_come_from_the_target_s_generator(two_layers):
    network, x, labels = two_layers[0].network, two_layers[1][:4], two_layers[2][:4]
    before = torch.get_rng_state()
    first, second = (
        EOT(PGD(steps=2), draws=3)(ImageTarget(network, RateEncoder(), generator=generator(9)), x, labels, generator(10)) for _ in range(2)
    )
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first, second)
    assert not torch.equal(first, x)


# Transfer ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inner", [PGD(steps=3), CodeBookAscent(steps=3, random_start=True)], ids=str)
def test_transfer_onto_itself_is_the_attack(two_layers, inner):
    target, x, labels = two_layers
    assert torch.equal(Transfer(target, inner)(target, x, labels, generator(11)), inner(target, x, labels, generator(11)))


def test_transfer_never_asks_its_target(two_layers):
    target, x, labels = two_layers
    deaf = Plain(lambda x: pytest.fail("asked"))
    attacked = Transfer(target, FGSM())(deaf, x, labels)
    assert torch.equal(attacked, FGSM()(target, x, labels))


def test_transfer_needs_one_space(two_layers):
    target, x, labels = two_layers
    with pytest.raises(InputError, match="they are in 'image' and 'spikes'"):
        Transfer(target, FGSM())(target.spikes, x, labels)


# All -----------------------------------------------------------------------------------------------------------------------


LATTICE = [
    AnnealedPGD(steps=4),
    CodeBookAscent(steps=3, random_start=True),
    HopSkipJump(queries=60),
    Noise(draws=3, kind="levels"),
    RayS(queries=60),
    Square(queries=60, lattice=True),
]


@pytest.mark.parametrize("eps", [8 / 255, 0.0314, 0.03134])
@pytest.mark.parametrize("attack", LATTICE, ids=str)
def test_eps_near_a_whole_grey_level_is_that_level(two_layers, attack, eps):
    target, x, labels = (part if part is two_layers[0] else part[:8] for part in two_layers)
    attacked = replace(attack, eps=eps)(target, x, labels, generator(13))
    levels = 255 * (attacked.double() - x)
    assert 0 < levels.round().abs().max() <= 8
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-4)
    assert torch.equal(attacked, attack(target, x, labels, generator(13)))


@pytest.mark.parametrize("wrapped", [lambda inner: EOT(inner, eps=2 / 255), lambda inner: Transfer(Plain(None), inner, eps=2 / 255)])
def test_the_wrapper_s_eps_overrides_that_of_the_attack_in_it(wrapped):
    assert wrapped(PGD(eps=0.5, steps=3)).attack == PGD(eps=2 / 255, steps=3)


ATTACKS = [
    CodeBookAscent(steps=3),
    CodeBookAscent(steps=2, random_start=True, restarts=3),
    AnnealedPGD(steps=4),
    EOT(PGD(steps=2, restarts=2), draws=3),
    EOT(CodeBookAscent(steps=2), draws=3),
    EOT(AnnealedPGD(steps=3), draws=2),
]


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_passes_are_what_the_meter_counts(two_layers, attack):
    target, x, labels = (part if part is two_layers[0] else part[:2] for part in two_layers)
    meter = Meter(labels)
    attack(Metered(target, meter), x, labels, generator(12))
    assert Passes(meter.forwards, meter.backwards) == Passes(*(2 * count for count in attack.passes))


def test_passes_of_transfer_are_those_of_its_source(two_layers):
    target, x, labels = two_layers
    meter = Meter(labels)
    attack = Transfer(Metered(target, meter), CodeBookAscent(steps=2))
    attack(target, x, labels)
    assert Passes(meter.forwards, meter.backwards) == Passes(*(len(x) * count for count in attack.passes))


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (CodeBookAscent, {"momentum": 1.1}),
        (CodeBookAscent, {"momentum": -0.1}),
        (CodeBookAscent, {"restarts": 0}),
        (AnnealedPGD, {"eps": 0.05}),
        (AnnealedPGD, {"alpha": 0}),
        (AnnealedPGD, {"widths": ()}),
        (AnnealedPGD, {"widths": (8, 0)}),
        (AnnealedPGD, {"steps": 2}),
        (AnnealedPGD, {"loss": "mse"}),
        (EOT, {"attack": FGSM(), "draws": 0}),
        (EOT, {"attack": FGSM(), "eps": -1}),
        (Transfer, {"attack": FGSM(), "source": None, "eps": -1}),
    ],
)
def test_bad_settings_are_refused(kind, wrong):
    with pytest.raises(InputError, match=list(wrong)[-1]):
        kind(**wrong)

from itertools import pairwise

import foolbox
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from snn_sparsity.attacks import FGSM, PGD, CodeBookAscent
from snn_sparsity.attacks.base import input_gradient, margin
from snn_sparsity.attacks.targets import ImageTarget, SpikeTarget
from snn_sparsity.classifier import SpikingClassifier
from snn_sparsity.encoders import DirectEncoder, LatencyEncoder, PhaseEncoder
from snn_sparsity.networks import SEWResNet
from snn_sparsity.validation import InputError
from tests.tiny import TinyNetwork, colourful

EPS = 8 / 255


class Plain:
    """Any differentiable function as a target in image space."""

    space, bounds = "image", (0.0, 1.0)

    def __init__(self, function):
        self.logits = function


def linear(weights):
    return Plain(lambda x: x.flatten(1) @ weights.T)


@pytest.fixture(scope="module")
def cnn():
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(392, 5)).eval()


@pytest.fixture(scope="module")
def images():
    return torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def labels():
    return torch.tensor([0, 1, 2, 3, 4, 0])


def test_margin_by_hand():
    assert margin(torch.tensor([[2.0, 5.0, 1.0], [0.0, 0.0, 0.0]]), torch.tensor([0, 2])).tolist() == [3.0, 0.0]


def test_fgsm_on_a_linear_model_by_hand():
    # z = (0, 2 a - 3 b + 0 c): the loss of label 0 grows with a, falls with b, ignores c.
    target = linear(torch.tensor([[0.0, 0.0, 0.0], [2.0, -3.0, 0.0]]))
    x = torch.tensor([[0.5, 0.5, 0.5], [0.9, 0.1, 0.5]])
    attacked = FGSM(eps=0.25)(target, x, torch.tensor([0, 0]))
    torch.testing.assert_close(attacked, torch.tensor([[0.75, 0.25, 0.5], [1.0, 0.0, 0.5]]))


def test_pgd_on_a_linear_model_walks_to_the_corner():
    target = linear(torch.tensor([[0.0, 0.0, 0.0], [2.0, -3.0, 0.0]]))
    x = torch.tensor([[0.5, 0.5, 0.5]])
    attacked = PGD(eps=0.1, alpha=0.04, steps=4, random_start=False)(target, x, torch.tensor([0]))
    torch.testing.assert_close(attacked, torch.tensor([[0.6, 0.4, 0.5]]))


@pytest.mark.parametrize("attack", [FGSM(eps=EPS), PGD(eps=EPS), PGD(eps=EPS, restarts=3, loss="margin"), PGD(eps=0.7, alpha=0.3)], ids=str)
def test_inside_ball_and_bounds(attack, cnn, images, labels):
    attacked = attack(Plain(cnn), images, labels, torch.Generator().manual_seed(3))
    assert (attacked - images).abs().max() <= attack.eps + 1e-6
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    assert not torch.equal(attacked, images)


@pytest.mark.parametrize("attack", [FGSM(eps=0), PGD(eps=0), PGD(eps=0, restarts=2)], ids=str)
def test_eps_0_is_the_identity(attack, cnn, images, labels):
    assert torch.equal(attack(Plain(cnn), images, labels), images)


@pytest.mark.parametrize("loss", ["ce", "margin"])
@pytest.mark.parametrize("keep", ["best", "last"])
def test_one_step_of_pgd_is_fgsm(loss, keep, cnn, images, labels):
    pgd = PGD(eps=EPS, alpha=EPS, steps=1, random_start=False, loss=loss, keep=keep)
    assert torch.equal(pgd(Plain(cnn), images, labels), FGSM(eps=EPS, loss=loss)(Plain(cnn), images, labels))


@pytest.mark.parametrize("attack", [FGSM(eps=EPS), PGD(eps=EPS, random_start=False)], ids=str)
def test_a_zero_gradient_leaves_x_unchanged(attack, images, labels):
    dead = Plain(lambda x: (x * 0).flatten(1)[:, :5])
    assert torch.equal(attack(dead, images, labels), images)


def test_the_best_iterate_is_at_least_as_good_as_the_last(cnn, images, labels):
    # Steps far too long: the loss goes up and down.
    best, last = (PGD(eps=0.3, alpha=0.25, steps=9, random_start=False, keep=keep)(Plain(cnn), images, labels) for keep in ("best", "last"))
    gain = margin(cnn(best), labels) - margin(cnn(last), labels)
    assert (gain >= 0).all()
    assert (gain > 0).any()


def test_restarts_keep_the_worst_case(cnn, images, labels):
    one = PGD(eps=EPS, steps=3)(Plain(cnn), images, labels, torch.Generator().manual_seed(4))
    five = PGD(eps=EPS, steps=3, restarts=5)(Plain(cnn), images, labels, torch.Generator().manual_seed(4))
    gain = margin(cnn(five), labels) - margin(cnn(one), labels)
    assert (gain >= 0).all()
    assert (gain > 0).any()


def test_attacks_work_inside_inference_mode(cnn, images, labels):
    outside = FGSM()(Plain(cnn), images, labels)
    with torch.inference_mode():
        inside = FGSM()(Plain(cnn), images.clone(), labels.clone())
    assert torch.equal(inside, outside)


def test_a_sample_s_gradient_does_not_depend_on_its_batch(classifier):
    spikes = torch.randint(0, 2, (4, 6, 3, 32, 32), generator=torch.Generator().manual_seed(5)).float()
    target = SpikeTarget(classifier)
    together, _ = input_gradient(target.logits, spikes, torch.arange(4))
    alone, _ = input_gradient(target.logits, spikes[2:3], torch.tensor([2]))
    torch.testing.assert_close(together[2:3], alone)
    assert together.abs().sum() > 0


# Oracles ------------------------------------------------------------------------------------------------------------------


def foolbox_model(function):
    class Module(nn.Module):
        def forward(self, x):
            return function(x)

    return foolbox.PyTorchModel(Module().eval(), bounds=(0, 1), device="cpu")


def small_sew():
    """A SEW network in eval mode whose BatchNorm has seen data, so that spikes reach the output."""
    torch.manual_seed(6)
    network = SEWResNet(depth=18, num_classes=5)
    classifier = SpikingClassifier(network).train()
    with torch.no_grad():
        for _ in range(3):
            classifier(torch.randint(0, 2, (2, 4, 3, 32, 32)).float())
    return classifier.eval()


@pytest.fixture(scope="module")
def targets(cnn):
    sew = small_sew()
    return {
        "cnn, image": (Plain(cnn), torch.rand(6, 3, 32, 32)),
        "sew, spikes": (SpikeTarget(sew), torch.randint(0, 2, (6, 2, 3, 32, 32)).float()),
        "sew, image": (ImageTarget(sew, DirectEncoder(num_steps=2)), torch.randint(0, 256, (6, 3, 32, 32)) / 255),
    }


@pytest.mark.parametrize("name", ["cnn, image", "sew, spikes", "sew, image"])
def test_fgsm_equals_foolbox_element_for_element(name, targets, labels):
    target, x = targets[name]
    theirs, _, _ = foolbox.attacks.LinfFastGradientAttack(random_start=False)(foolbox_model(target.logits), x, labels, epsilons=EPS)
    ours = FGSM(eps=EPS)(target, x, labels)
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours, x)


@pytest.mark.parametrize("name", ["cnn, image", "sew, spikes", "sew, image"])
def test_pgd_equals_foolbox_element_for_element(name, targets, labels):
    target, x = targets[name]
    attack = foolbox.attacks.LinfProjectedGradientDescentAttack(abs_stepsize=0.01, steps=7, random_start=False)
    theirs, _, _ = attack(foolbox_model(target.logits), x, labels, epsilons=EPS)
    ours = PGD(eps=EPS, alpha=0.01, steps=7, random_start=False, keep="last")(target, x, labels)
    # Foolbox projects the perturbation, we the point: the last bit may differ. A wrong sign would be 0.02 away.
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-7)


# Code-book ascent ---------------------------------------------------------------------------------------------------------


class LinearCode:
    """An image target whose logits are linear in the code: z = (0, sum w s)."""

    space, bounds = "image", (0.0, 1.0)

    def __init__(self, encoder, weights):
        self.code_book, self.encoder = encoder.code_book, encoder
        functional = lambda spikes: torch.stack([torch.zeros(len(spikes)), (spikes * weights).flatten(1).sum(1)], 1)  # noqa: E731
        self.spikes = Plain(functional)
        self.logits = lambda x: functional(encoder(x).transpose(0, 1))


@pytest.mark.parametrize("encoder", [PhaseEncoder(), PhaseEncoder(weighted=True), LatencyEncoder(6), DirectEncoder(3)], ids=str)
@given(seed=st.integers(0, 2**16), radius=st.integers(0, 255))
@settings(max_examples=15, deadline=None, derandomize=True)
def test_code_book_ascent_is_brute_force_on_a_linear_functional(encoder, seed, radius):
    generator = torch.Generator().manual_seed(seed)
    levels = torch.randint(0, 256, (2, 1, 2, 3), generator=generator)
    weights = torch.randn(encoder.num_steps, 1, 2, 3, generator=generator)
    target = LinearCode(encoder, weights)
    attacked = CodeBookAscent(eps=radius / 255, steps=1, smallest_fraction=1.0)(target, levels / 255, torch.tensor([0, 0]))
    # Every pixel by itself, every level in its ball.
    value = torch.einsum("ct,tihw->cihw", encoder.code_book, weights)
    candidates = torch.arange(256).view(256, 1, 1, 1, 1)
    allowed = (candidates - levels).abs() <= radius
    optimum = value.unsqueeze(1).expand(-1, 2, -1, -1, -1).masked_fill(~allowed, float("-inf")).amax(0)
    reached = (encoder(attacked) * weights.unsqueeze(1)).sum(0)
    torch.testing.assert_close(reached, optimum, rtol=1e-5, atol=1e-5)


def coded_target():
    torch.manual_seed(8)
    classifier = SpikingClassifier(TinyNetwork()).eval()
    return ImageTarget(classifier, PhaseEncoder())


def test_code_book_ascent_returns_8_bit_images_in_the_ball():
    images, labels = colourful(5, 4, seed=9)
    x = images / 255
    attacked = CodeBookAscent(eps=EPS, steps=6)(coded_target(), x, labels)
    levels = attacked * 255
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-4)
    assert ((levels.round() - images).abs() <= 8).all()
    assert levels.min() >= 0
    assert levels.max() <= 255


def test_code_book_ascent_never_ends_below_where_it_began():
    images, labels = colourful(16, 4, seed=10)
    target = coded_target()
    attacked = CodeBookAscent(eps=EPS, steps=6)(target, images / 255, labels)
    before, after = (margin(target.judge(x), labels) for x in (images / 255, attacked))
    assert (after >= before).all()
    assert (after > before).any()


def test_a_single_step_moves_the_whole_image_and_a_last_one_few_pixels():
    # Constant gradients: the level of each pixel is settled at step 1, whatever comes later.
    weights = torch.randn(10, 3, 8, 8, generator=torch.Generator().manual_seed(11))
    target = LinearCode(PhaseEncoder(), weights)
    levels = torch.randint(0, 256, (1, 3, 8, 8), generator=torch.Generator().manual_seed(12))
    x, labels = levels / 255, torch.tensor([0])
    once = CodeBookAscent(eps=EPS, steps=1)(target, x, labels)
    assert torch.equal(once, CodeBookAscent(eps=EPS, steps=4)(target, x, labels))
    assert (once != x).float().mean() > 0.8


def test_of_pixels_that_gain_alike_no_more_move_than_may():
    # All 64 pixels gain the same, and what they gain by turns its sign each step.
    target, shown = LinearCode(PhaseEncoder(8), torch.ones(8, 1, 8, 8)), []

    def turning(spikes):
        shown.append(spikes.detach().clone())
        return torch.stack([torch.zeros(len(spikes)), (-1) ** len(shown) * spikes.flatten(1).sum(1)], 1)

    target.spikes = Plain(turning)
    CodeBookAscent(steps=4, smallest_fraction=1 / 64, momentum=0, loss="margin")(
        target, torch.full((2, 1, 8, 8), 100 / 255), torch.tensor([0, 0])
    )
    moved = [(after != before).any(1).flatten(1).sum(1).tolist() for before, after in pairwise(shown)]
    assert moved == [[64, 64], [16, 16], [4, 4], [1, 1]]


def test_code_book_ascent_leaves_a_dead_network_alone():
    target = coded_target()
    with torch.no_grad():
        target.spikes.network.network.fc.weight.zero_()
    images, labels = colourful(3, 4, seed=12)
    attacked = CodeBookAscent(eps=EPS)(target, images / 255, labels)
    assert torch.equal((attacked * 255).round(), images.float())


def test_code_book_ascent_needs_a_code_book(classifier):
    images, labels = colourful(1, 4, seed=13)
    with pytest.raises(InputError, match="code book"):
        CodeBookAscent()(SpikeTarget(classifier), images / 255, labels)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (FGSM, {"eps": -0.1}),
        (FGSM, {"eps": float("nan")}),
        (FGSM, {"loss": "mse"}),
        (PGD, {"alpha": 0}),
        (PGD, {"steps": 0}),
        (PGD, {"steps": 1.5}),
        (PGD, {"restarts": 0}),
        (PGD, {"keep": "first"}),
        (CodeBookAscent, {"eps": 0.05}),
        (CodeBookAscent, {"steps": 0}),
        (CodeBookAscent, {"smallest_fraction": 0}),
        (CodeBookAscent, {"smallest_fraction": 1.5}),
    ],
)
def test_bad_settings_are_refused(kind, wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        kind(**wrong)

"""Targets as other attack libraries take them."""

import warnings

import foolbox
import pytest
import torch
from pyautoattack import AutoAttack
from torch import nn

from snn_sparsity.attacks import FGSM, PGD
from snn_sparsity.attacks.targets import ImageTarget, PlainTarget
from snn_sparsity.encoders import DirectEncoder, PhaseEncoder, RateEncoder
from tests.test_contracts import State, used_classifier

IMAGES = torch.randint(0, 256, (6, 3, 32, 32), generator=torch.Generator().manual_seed(1)) / 255


def plain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 4)).train()


TARGETS = {
    "phase": lambda: ImageTarget(used_classifier(), PhaseEncoder()),
    "direct": lambda: ImageTarget(used_classifier(), DirectEncoder(num_steps=3)),
    "random": lambda: ImageTarget(used_classifier(), RateEncoder(num_steps=4), generator=torch.Generator().manual_seed(1)),
    "plain": lambda: PlainTarget(plain()),
}


@pytest.fixture(params=TARGETS.values(), ids=list(TARGETS))
def target(request):
    target = request.param()
    before = State(target.network)
    yield target
    before.assert_equal(target.network)


def test_it_is_the_target(target):
    model = target.as_image_model()
    x = IMAGES.clone().requires_grad_()
    logits = model(x)
    assert logits.shape == (6, 4)
    (gradient,) = torch.autograd.grad(logits.sum(), x)
    assert gradient.abs().sum() > 0
    if getattr(target, "encoder", None) is None or not target.encoder.stochastic:
        assert torch.equal(logits, target.logits(IMAGES))


def test_no_library_changes_the_classifier_through_it(target):
    model = target.as_image_model()
    assert not model.training
    assert next(model.parameters()).device == next(target.network.parameters()).device
    model.train().requires_grad_(True)
    model.zero_grad()
    model.eval()
    model(IMAGES.clone().requires_grad_()).sum().backward()


@pytest.mark.parametrize("name", ["phase", "direct", "plain"])
def test_foolbox_finds_the_same_points(name):
    target = TARGETS[name]()
    labels = target.judge(IMAGES).argmax(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = foolbox.PyTorchModel(target.as_image_model(), bounds=(0, 1), device="cpu")
    fgsm, _, _ = foolbox.attacks.LinfFastGradientAttack()(model, IMAGES, labels, epsilons=8 / 255)
    assert torch.equal(fgsm, FGSM()(target, IMAGES, labels))
    # Powers of two, so that no order of additions rounds differently.
    x = (256 * IMAGES).floor() / 256
    pgd, _, _ = foolbox.attacks.LinfPGD(abs_stepsize=1 / 64, steps=4, random_start=False)(model, x, labels, epsilons=1 / 32)
    assert torch.equal(pgd, PGD(eps=1 / 32, alpha=1 / 64, steps=4, random_start=False, keep="last")(target, x, labels))


@pytest.mark.parametrize("name", ["direct", "plain"])
def test_autoattack_takes_it_as_it_is(name):
    target = TARGETS[name]()
    model, labels = target.as_image_model(), target.judge(IMAGES).argmax(1)
    attack = AutoAttack(model, norm="Linf", eps=0.3, version="custom", attacks=["apgd-ce", "square"], seed=0)
    attack.apgd.n_iter, attack.square.n_queries = 10, 20
    attacked, *_ = attack.run_standard_evaluation(IMAGES, labels)
    assert (attacked - IMAGES).abs().max() <= 0.3 + 1e-6
    assert torch.equal(model(attacked), target.judge(attacked))
    if name == "plain":  # the spiking one, hardly trained, says the same of everything
        assert (model(attacked).argmax(1) != labels).any()

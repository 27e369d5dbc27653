"""Stochastic quantisation: its levels, its mean and variance, its gradient, and that random codes are attacked on the mean over draws."""

import pytest
import torch
from lightning import Trainer

from snn_sparsity.attacks import EOT, FGSM
from snn_sparsity.attacks.targets import ImageTarget
from snn_sparsity.classifier import SpikingClassifier
from snn_sparsity.encoders import DirectEncoder, QuantisedEncoder, RateEncoder
from snn_sparsity.probes import AdversarialAccuracy
from tests.tiny import TinyDataModule, TinyNetwork


def draws_of(encoder, level, count):
    images = torch.full((1, 1, 1, count), level, dtype=torch.uint8)
    return encoder(images, torch.Generator().manual_seed(8)).flatten().double()


@pytest.mark.parametrize("level", [0, 1, 90, 200, 255])
@pytest.mark.parametrize(("levels", "signed"), [(1, False), (1, True), (2, False), (3, True), (255, False)])
def test_the_mean_is_the_value_and_the_levels_are_the_two_nearest(level, levels, signed):
    count = 100_000
    drawn = draws_of(QuantisedEncoder(1, levels, signed), level, count)
    value = 2 * level / 255 - 1 if signed else level / 255
    part = levels * abs(value) % 1
    part = round(part, 6) % 1
    variance = part * (1 - part) / levels**2
    assert drawn.mean().item() == pytest.approx(value, abs=4 * (variance / count) ** 0.5 + 1e-6)
    assert drawn.var().item() == pytest.approx(variance, abs=5 * (part * (1 - part) / count) ** 0.5 / levels**2 + 1e-6)
    assert (drawn - value).abs().max() < 1 / levels + 1e-6
    torch.testing.assert_close(drawn * levels, (drawn * levels).round())


def test_one_level_is_poisson_and_many_are_direct():
    images = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    ours = QuantisedEncoder(50, 1)(images, torch.Generator().manual_seed(1))
    assert ours.mean().item() == pytest.approx(RateEncoder(50)(images, torch.Generator().manual_seed(2)).mean().item(), abs=0.02)
    assert set(ours.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(QuantisedEncoder(3, 255)(images, torch.Generator()), DirectEncoder(3)(images), atol=1 / 255 + 1e-6, rtol=0)


@pytest.mark.parametrize(("signed", "slope"), [(False, 1.0), (True, 2.0)])
def test_the_gradient_goes_straight_through(signed, slope):
    x = torch.rand(2, 3, 4, 4).requires_grad_()
    encoder = QuantisedEncoder(5, 2, signed)
    spikes = encoder(x, torch.Generator().manual_seed(1))
    assert torch.equal(spikes, encoder(x.detach(), torch.Generator().manual_seed(1))), "the gradient changes no value"
    weights = torch.randn_like(spikes)
    (gradient,) = torch.autograd.grad((spikes * weights).sum(), x)
    torch.testing.assert_close(gradient, slope * weights.sum(0))


def test_a_target_takes_the_gradient_through_the_draws():
    classifier = SpikingClassifier(TinyNetwork()).eval()
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8) / 255
    target = ImageTarget(classifier, QuantisedEncoder(10, 1, signed=True), generator=torch.Generator().manual_seed(3))
    x = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(target.logits(x).sum(), x)
    spikes = QuantisedEncoder(10, 1, signed=True)(images, torch.Generator().manual_seed(3)).requires_grad_()
    (of_spikes,) = torch.autograd.grad(classifier(spikes).sum(), spikes)
    torch.testing.assert_close(gradient, 2 * of_spikes.sum(0))


class Counting(SpikingClassifier):
    calls = 0

    def forward(self, spikes):
        type(self).calls += 1
        return super().forward(spikes)


@pytest.mark.parametrize(
    ("encoder", "attack", "forwards", "told"),
    [
        (QuantisedEncoder(2), FGSM(), 4, "EOT(eps=8/255, attack=FGSM(eps=8/255), draws=4)"),
        (RateEncoder(2), EOT(FGSM(), draws=3), 3, "EOT(eps=8/255, attack=FGSM(eps=8/255), draws=3)"),
        (DirectEncoder(2), FGSM(), 1, "FGSM(eps=8/255)"),
    ],
)
def test_random_codes_are_attacked_on_the_mean_over_draws(encoder, attack, forwards, told, trainer_options):
    classifier = Counting(TinyNetwork())
    probe = AdversarialAccuracy(attack=attack, draws=4, name="it")
    trainer = Trainer(callbacks=[probe], **trainer_options)
    Counting.calls = 0
    trainer.validate(classifier, datamodule=TinyDataModule(encoder=encoder, eval_batch_size=20), verbose=False)
    # The validation step, what the attack asks, and the clean and attacked images at the end.
    assert Counting.calls == 1 + forwards + 2
    assert probe.describe() == f"image, BatchNorm eval, {told}"


@pytest.mark.parametrize("levels", [1, 255])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_white_is_white_whatever_is_drawn(levels, dtype):
    code = QuantisedEncoder(8, levels=levels)(torch.ones(16, 3, 32, 32, dtype=dtype), torch.Generator().manual_seed(0))
    assert code.max() == 1

import pytest
import torch

from snn_sparsity.attacks import FGSM, PGD
from snn_sparsity.checks import InputError
from snn_sparsity.encoders import PhaseEncoder, RateEncoder
from snn_sparsity.targets import ImageTarget, SpikeTarget


@pytest.fixture
def spikes():
    return torch.randint(0, 2, (4, 6, 3, 32, 32), generator=torch.Generator().manual_seed(0)).float()


LABELS = torch.arange(4)


def test_the_two_spaces_are_one_function(classifier):
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    encoder = PhaseEncoder()
    from_image = ImageTarget(classifier, encoder).logits(images / 255)
    from_spikes = SpikeTarget(classifier).logits(encoder(images).transpose(0, 1))
    torch.testing.assert_close(from_image, from_spikes, rtol=0, atol=0)
    torch.testing.assert_close(from_spikes, classifier(encoder(images)), rtol=0, atol=0)


def test_logits_do_not_depend_on_what_was_asked_before(classifier, spikes):
    target = SpikeTarget(classifier)
    first = target.logits(spikes)
    target.logits(1 - spikes)
    assert torch.equal(first, target.logits(spikes))


def test_eval_mode_whatever_the_classifier_s_mode(classifier, spikes):
    expected = classifier(spikes.transpose(0, 1))
    classifier.train()
    torch.testing.assert_close(SpikeTarget(classifier).logits(spikes), expected)
    assert all(module.training for module in classifier.modules())


def test_batch_statistics_are_another_function(classifier, spikes):
    assert not torch.allclose(SpikeTarget(classifier, "batch").logits(spikes), SpikeTarget(classifier).logits(spikes))


def test_running_statistics_drift_in_the_target_and_not_in_the_classifier(classifier, spikes):
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    target = SpikeTarget(classifier, "batch")
    pristine = target.judge(spikes)
    torch.testing.assert_close(pristine, classifier(spikes.transpose(0, 1)))
    PGD()(target, spikes, LABELS)
    assert not torch.allclose(target.judge(spikes), pristine)
    for name, value in classifier.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_drift_is_the_momentum_update_of_batch_norm(classifier, spikes):
    target = SpikeTarget(classifier, "batch")
    target.logits(spikes)
    # The first BatchNorm sees conv1 of the spikes: running mean 0.9 x 0 + 0.1 x batch mean.
    mean = classifier.network.conv1(spikes.transpose(0, 1)).mean((0, 1, 3, 4))
    torch.testing.assert_close(target._buffers["network.bn1.running_mean"], 0.1 * mean, rtol=1e-4, atol=1e-6)


def test_parameters_get_no_gradient(classifier, spikes):
    target = SpikeTarget(classifier)
    logits = target.logits(spikes.requires_grad_())
    with pytest.raises(RuntimeError, match="not have been used|unused"):
        torch.autograd.grad(logits.sum(), list(classifier.parameters()))
    assert all(parameter.requires_grad for parameter in classifier.parameters())


def test_the_observer_sees_every_gradient(classifier, spikes):
    seen = []
    PGD(steps=3, keep="last")(SpikeTarget(classifier, observer=lambda gradient: seen.append(gradient.shape)), spikes, LABELS)
    assert seen == [spikes.shape] * 3


def test_the_spike_ball_holds_no_valid_code_but_the_clean_one(classifier, spikes):
    attacked = FGSM(eps=8 / 255)(SpikeTarget(classifier), spikes, LABELS)
    assert not torch.equal(attacked, spikes)
    assert torch.equal(attacked.round(), spikes)


def test_a_stochastic_encoder_draws_from_the_target_s_generator(classifier):
    images = torch.rand(2, 3, 32, 32)
    first, second = (ImageTarget(classifier, RateEncoder(4), generator=torch.Generator().manual_seed(1)).logits(images) for _ in range(2))
    assert torch.equal(first, second)


def test_unknown_modes_are_refused(classifier):
    with pytest.raises(InputError, match="batch_norm='train'"):
        SpikeTarget(classifier, "train")

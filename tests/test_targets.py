import pytest
import torch
import torch.nn.functional as F
from torch import nn

from snn_sparsity.attacks import FGSM, PGD
from snn_sparsity.attacks.base import input_gradient
from snn_sparsity.attacks.targets import ImageTarget, PlainTarget, SpikeTarget
from snn_sparsity.encoders import DirectEncoder, PhaseEncoder, RateEncoder
from snn_sparsity.validation import InputError


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


def box_gradient(encoder, half_width, level):
    """What gradient the target sends to one pixel for each time step's spike gradient of 1, by its definition."""

    class Steps(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, spikes):
            return spikes.flatten(2).movedim(0, -1).flatten(1)

    target = ImageTarget(Steps(), encoder, half_width=half_width, generator=torch.Generator())
    x = torch.full((1, 1, 1, 1), level / 255, requires_grad=True)
    logits = target.logits(x)
    return [torch.autograd.grad(logits[0, step], x, retain_graph=True)[0].item() for step in range(logits.shape[1])]


def test_the_gradient_of_a_code_is_that_of_its_average_over_nearby_levels():
    # Level 127 is 01111111: within 1 level, only the highest bit rises from 126 to 128, and all others but the last fall.
    assert box_gradient(PhaseEncoder(num_steps=8), 1, 127) == [127.5, *[-127.5] * 6, 0.0]
    # A plane whose period divides 2h has none: with h=8, the four lowest.
    assert box_gradient(PhaseEncoder(num_steps=8), 8, 100)[4:] == [0.0] * 4


def test_the_gradient_of_a_linear_code_is_exact_also_at_the_ends():
    for level in (0, 3, 128, 255):
        assert box_gradient(DirectEncoder(num_steps=2), 8, level) == pytest.approx([1.0, 1.0])
        assert box_gradient(RateEncoder(num_steps=2), 8, level) == pytest.approx([1.0, 1.0])


def test_smoothing_changes_the_gradient_and_no_logit(classifier):
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(4))
    target = ImageTarget(classifier, PhaseEncoder())
    gradients = {}
    for half_width in (8, 2):
        smoothed = target.smoothed(half_width)
        gradients[half_width], logits = input_gradient(smoothed.logits, images, LABELS[:2])
        assert torch.equal(logits, target.judge(images))
    assert not torch.equal(gradients[8], gradients[2])


class Shared(nn.Module):
    """One weight in two layers, and one BatchNorm in two places."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.norm = nn.Linear(4, 4), nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.second.weight, self.again = self.first.weight, self.norm

    def forward(self, x):
        return self.second(self.again(self.norm(self.first(x))))


@pytest.mark.parametrize("batch_norm", ["eval", "batch"])
def test_what_is_shared_counts_once_gets_no_gradient_and_stays_as_it_was(batch_norm):
    network = Shared().eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    x, labels = torch.rand(8, 4), torch.zeros(8, dtype=torch.long)
    target = PlainTarget(network, batch_norm)
    gradient, _ = input_gradient(target.logits, x, labels)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(type(parameter) is nn.Parameter and parameter.requires_grad and parameter.grad is None for parameter in network.parameters())
    if batch_norm == "batch":
        assert target.drift().kept["network.norm.running_mean"] == pytest.approx(0.81), "it saw two batches"
    network.train(batch_norm == "batch")
    plain = x.clone().requires_grad_()
    F.cross_entropy(network(plain), labels, reduction="sum").backward()
    torch.testing.assert_close(gradient, plain.grad)

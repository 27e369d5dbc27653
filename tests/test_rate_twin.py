import pickle

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from snn_sparsity.attacks import PGD, Transfer
from snn_sparsity.attacks.targets import ImageTarget
from snn_sparsity.classifier import SpikingClassifier
from snn_sparsity.encoders import PhaseEncoder
from snn_sparsity.networks import IFNeuron, SEWResNet, SpikingResNet, rate_twin
from tests.tiny import TinyNetwork


def two_layers(weights, thresholds):
    """Linear, neuron, linear, neuron on [T,N,2]."""
    layers = []
    for matrix, threshold in zip(weights, thresholds, strict=True):
        linear = layer.Linear(2, 2, bias=False)
        linear.weight = nn.Parameter(torch.tensor(matrix))
        layers += [linear, IFNeuron(threshold=threshold).build()]
    network = nn.Sequential(*layers)
    functional.set_step_mode(network, "m")
    return network


def test_two_layers_by_hand():
    twin = rate_twin(two_layers([[[1.0, 1.0], [4.0, -1.0]], [[0.5, 0.25], [-1.0, 0.5]]], thresholds=[1.0, 2.0]))
    # Rates 3/4 and 1/4: 1 and 2.75, cut to 1 and 1; then 0.75 and -0.5, over the threshold 2.
    spikes = torch.tensor([[[1.0, 1.0]], [[1.0, 0.0]], [[0.0, 0.0]], [[1.0, 0.0]]])
    assert twin(spikes).tolist() == [[[0.375, 0.0]]]


def test_the_order_and_number_of_time_steps_do_not_matter():
    twin = rate_twin(TinyNetwork().eval())
    spikes = torch.randint(0, 2, (5, 2, 3, 32, 32), generator=torch.Generator().manual_seed(1)).float()
    torch.testing.assert_close(twin(spikes), twin(spikes.flip(0).repeat(2, 1, 1, 1, 1)))


def test_a_long_run_of_soft_resets_fires_at_the_twin_s_rate():
    node = IFNeuron(threshold=0.8, reset=None).build()
    node.step_mode = "m"
    x = torch.linspace(-1, 2, 31, dtype=torch.float64)
    rate = node(x.expand(1000, -1)).mean(0)
    torch.testing.assert_close(rate, rate_twin(nn.Sequential(node))(x.expand(3, -1))[0], rtol=0, atol=2e-3)


def test_its_gradient_is_that_of_its_forward_pass():
    torch.manual_seed(2)
    twin = rate_twin(two_layers([[[1.0, 0.3], [0.4, -1.0]], [[0.5, 0.25], [-1.0, 0.5]]], thresholds=[1.0, 2.0])).double()
    spikes = torch.rand(3, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()
    assert torch.autograd.gradcheck(twin, spikes)
    assert torch.autograd.grad(twin(spikes).sum(), spikes)[0].abs().sum() > 0


@pytest.mark.parametrize("kind", [TinyNetwork, SEWResNet, SpikingResNet])
def test_a_network_s_twin_has_its_weights_and_leaves_it_alone(kind):
    network = kind(num_classes=3)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    twin = rate_twin(network)
    assert not any(isinstance(module, neuron.BaseNode) for module in twin.modules())
    assert any(isinstance(module, neuron.BaseNode) for module in network.modules())
    assert not network._forward_pre_hooks
    assert twin.num_classes == network.num_classes
    twin.load_state_dict(network.state_dict())
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_classifier_around_the_twin_gives_logits_and_a_source_to_transfer_from(classifier):
    source = ImageTarget(SpikingClassifier(rate_twin(classifier.network)).eval(), PhaseEncoder())
    target = ImageTarget(classifier, PhaseEncoder())
    x = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(4))
    assert source.judge(x).shape == (3, 4)
    assert not torch.equal(source.judge(x), target.judge(x))
    attack, labels = PGD(steps=2, random_start=False), torch.arange(3)
    assert torch.equal(Transfer(source, attack)(target, x, labels), attack(source, x, labels))


def test_the_twin_can_be_sent_to_another_process():
    twin = rate_twin(TinyNetwork().eval())
    spikes = torch.ones(2, 1, 3, 32, 32)
    assert torch.equal(pickle.loads(pickle.dumps(twin))(spikes), twin(spikes))

import pytest
import torch
from spikingjelly.activation_based import functional, neuron
from torch import nn

from snn_sparsity.attacks.base import input_gradient
from snn_sparsity.measure.gradients import record_gradients
from snn_sparsity.measure.operations import holds_state, kind_of, operations
from snn_sparsity.measure.sparsity import l2_norm, tiny_fraction, zero_fraction
from snn_sparsity.networks import SpikingResNet
from snn_sparsity.validation import InputError
from tests.tiny import TinyNetwork


def test_zeros_and_norm_by_hand():
    gradient = torch.tensor([[0.0, 0.0, 3.0, 4.0], [1.0, 0.0, 0.0, 0.0]])
    assert zero_fraction(gradient).tolist() == [0.5, 0.75]
    assert l2_norm(gradient).tolist() == [5.0, 1.0]


def test_tiny_count_what_some_machines_flush():
    gradient = torch.tensor([[0.0, -4e-33, 1e-12, 4.0], [2e-40, 1e-30, -1e-29, 0.0]])
    assert tiny_fraction(gradient).tolist() == [0.5, 0.75]
    assert tiny_fraction(gradient.T, batch_dim=1).tolist() == [0.5, 0.75]


def test_time_first_tensors_are_reduced_per_sample():
    gradient = torch.zeros(2, 3, 4)
    gradient[:, 1, 0] = torch.tensor([3.0, 4.0])
    assert zero_fraction(gradient, batch_dim=1).tolist() == [1.0, 0.75, 1.0]
    assert l2_norm(gradient, batch_dim=1).tolist() == [0.0, 5.0, 0.0]


@pytest.mark.parametrize("scale", [1e-3, 7.0])
def test_scale_leaves_zeros_and_multiplies_the_norm(scale):
    gradient = torch.randn(5, 30).relu()
    assert torch.equal(zero_fraction(scale * gradient), zero_fraction(gradient))
    torch.testing.assert_close(l2_norm(scale * gradient), scale * l2_norm(gradient))


def test_the_smallest_number_is_not_zero():
    assert zero_fraction(torch.tensor([[1e-45, 0.0]])).item() == 0.5


@pytest.mark.parametrize(
    ("module", "kind"),
    [
        (neuron.PSN(T=2), "neuron"), (neuron.MaskedPSN(k=1, T=2), "neuron"), (neuron.SlidingPSN(k=1), "neuron"),
        (neuron.GatedLIFNode(T=2), "neuron"), (neuron.NonSpikingIFNode(), None),
        (nn.AdaptiveMaxPool2d(1), "pool"), (nn.AdaptiveMaxPool1d(1), "pool"), (nn.FractionalMaxPool2d(2, 1), None),
    ],
)  # fmt: skip
def test_neurons_and_poolings_that_share_no_base(module, kind):
    assert kind_of(module) == kind


def test_every_neuron_is_an_operation_and_no_surrogate_is():
    listed = operations(TinyNetwork())
    assert [operation.tag for operation in listed] == [
        "conv/01_conv1", "bn/02_bn1", "neuron/03_sn1", "pool/04_maxpool", "conv/05_conv2", "bn/06_bn2", "neuron/07_sn2",
        "pool/08_avgpool", "linear/09_fc",
    ]  # fmt: skip


def test_a_name_does_not_depend_on_the_kinds_chosen():
    assert [operation.tag for operation in operations(TinyNetwork(), ["linear", "pool"])] == [
        "pool/04_maxpool", "pool/08_avgpool", "linear/09_fc",
    ]  # fmt: skip


def test_unknown_and_missing_kinds_are_refused():
    with pytest.raises(InputError, match="kinds='relu'"):
        operations(TinyNetwork(), ["relu"])
    with pytest.raises(InputError, match="no operation of Linear"):
        operations(nn.Linear(1, 1), ["conv"])


def test_two_weight_network_by_hand():
    # y = w2 relu(w1 x): the gradient at w2's input is w2, at w1's input w1 w2 where it is on.
    first, second = nn.Linear(1, 2, bias=False), nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[3.0], [-1.0]]))
        second.weight.copy_(torch.tensor([[4.0, 5.0]]))
    network = nn.Sequential(first, nn.ReLU(), second)
    x = torch.tensor([[[2.0]]], requires_grad=True)
    with record_gradients(network, ["linear"]) as record:
        torch.autograd.grad(network(x).sum(), x)
    assert [operation.path for operation in record.operations] == ["input", "0", "2"]
    assert record.values["2"][1].item() == pytest.approx(41**0.5)
    assert record.values["0"][1].item() == pytest.approx(12.0)
    assert record.values["input"][1].item() == pytest.approx(12.0)


def autograd_twin(network, spikes, weights, path):
    """The slow way: rerun the network with one operation's input cut out as a leaf, and differentiate what follows."""
    module = network.get_submodule(path)
    leaves = []

    def cut(_, inputs):
        leaves.append(inputs[0].detach().clone().requires_grad_())
        return (leaves[-1], *inputs[1:])

    handle = module.register_forward_pre_hook(cut)
    functional.reset_net(network)
    value = (network(spikes).mean(0) * weights).sum()
    handle.remove()
    functional.reset_net(network)
    (gradient,) = torch.autograd.grad(value, leaves[0])
    return gradient


@pytest.mark.parametrize("make", [TinyNetwork, lambda: SpikingResNet(num_classes=4)], ids=["tiny", "spiking_resnet"])
def test_against_autograd_cut_at_each_operation(make):
    torch.manual_seed(0)
    network = make().eval()
    spikes = torch.randint(0, 2, (3, 2, 3, 32, 32)).float()
    weights = torch.randn(2, 4)
    with record_gradients(network, reduce=lambda operation, gradient: gradient.clone()) as record:
        x = spikes.clone().requires_grad_()
        torch.autograd.grad((network(x).mean(0) * weights).sum(), x)
    # In the slow twin only what the operation itself sends back arrives: residual branches bypass the leaf.
    for path in [operation.path for operation in record.operations[1:]]:
        torch.testing.assert_close(record.values[path], autograd_twin(network, spikes, weights, path), msg=path)


class Reuses(nn.Module):
    def __init__(self, times):
        super().__init__()
        self.linear, self.times = nn.Linear(2, 2), times

    def forward(self, x):
        for _ in range(self.times):
            x = self.linear(x)
        return x * 1


@pytest.mark.parametrize("times", [0, 2])
def test_operations_that_run_other_than_once_are_named(times):
    network = Reuses(times)
    x = torch.ones(1, 1, 2, requires_grad=True)
    with pytest.raises(InputError, match=f"'linear' ran {times} times"), record_gradients(network, ["linear"]):
        torch.autograd.grad(network(x).sum(), x)
    assert not network.linear._forward_pre_hooks


def test_a_missing_reset_is_named():
    network = TinyNetwork().eval()
    x = torch.zeros(1, 1, 3, 32, 32, requires_grad=True)
    network(x)
    assert holds_state(network.sn1)
    with pytest.raises(InputError, match="'sn1' still holds the state"), record_gradients(network):
        network(x)


def test_an_input_without_gradient_is_named():
    network = nn.Sequential(nn.Linear(1, 1))
    with pytest.raises(InputError, match="'input' requires no gradient"), record_gradients(network, ["linear"]):
        network(torch.ones(1, 1, 1))


def test_a_loss_that_ignores_an_operation_is_named():
    network = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    x = torch.ones(1, 1, 1, requires_grad=True)
    seen = []
    network[0].register_forward_hook(lambda module, inputs, output: seen.append(output))
    with pytest.raises(InputError, match="no gradient reached operation '1'"), record_gradients(network, ["linear"]):
        network(x)
        torch.autograd.grad(seen[0].sum(), x)


def test_hooks_are_gone_after_an_exception(network):
    with pytest.raises(ZeroDivisionError), record_gradients(network):
        raise ZeroDivisionError
    assert all(not module._forward_pre_hooks for module in network.modules())


def test_half_precision_would_invent_zeros():
    # Why probes measure in float32: these are no zeros, but they would be in float16.
    gradient = torch.full((1, 8), 1e-9)
    assert zero_fraction(gradient).item() == 0.0
    assert zero_fraction(gradient.half()).item() == 1.0


def test_the_loss_is_summed(classifier):
    spikes = torch.randint(0, 2, (3, 3, 3, 32, 32)).float()
    one, _ = input_gradient(lambda x: classifier(x.transpose(0, 1)), spikes[:1], torch.tensor([1]))
    three, _ = input_gradient(lambda x: classifier(x.transpose(0, 1)), spikes, torch.tensor([1, 2, 3]))
    torch.testing.assert_close(one, three[:1])

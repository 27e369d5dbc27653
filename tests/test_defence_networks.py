"""VGG, WideResNet and their neurons: counts, cases worked by hand, and what each setting changes."""

from dataclasses import replace

import pytest
import torch
from spikingjelly.activation_based import neuron

from snn_sparsity.classifier import SpikingClassifier
from snn_sparsity.networks import VGG, LeakyNeuron, WideResNet
from snn_sparsity.networks.leaky import SLOPES, LeakyNode
from snn_sparsity.networks.vgg import VGG5
from snn_sparsity.validation import InputError
from tests.defences import HIRE, SHARMIN

TINY = {"channels": [4, "A", 6], "hidden": 8, "image_size": 8}


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("kind", "settings", "count"),
    [
        (VGG, {}, 61_377_034),
        (VGG, {"num_classes": 100}, 61_745_764),
        (WideResNet, {}, 2_748_902),
        (WideResNet, {"num_classes": 100}, 2_772_032),
        (VGG, {"channels": VGG5, "hidden": 1024, "bias": False, "batch_norm": False, "neurons": SHARMIN}, 9_670_336),
        (VGG, {"channels": VGG5, "bias": False, "batch_norm": False, "neurons": HIRE}, 50_595_530),
        (VGG, {"num_classes": 100, "bias": False, "batch_norm": False, "neurons": HIRE}, 61_728_468),
    ],
)
def test_parameters(kind, settings, count):
    assert parameters(kind(**settings)) == count


def spikes_of(recipe, *inputs):
    node = recipe.build()
    node.step_mode = "m"
    return node(torch.tensor(inputs, dtype=torch.float64).unsqueeze(1)).flatten().int().tolist()


def test_spikes_by_hand():
    constant = [0.625] * 8
    assert spikes_of(LeakyNeuron(), *constant) == [0, 1, 0, 1, 0, 1, 0, 1]
    # The eighth potential is exactly 1.
    assert spikes_of(HIRE, *constant) == [0, 1, 0, 1, 1, 0, 1, 0]
    assert spikes_of(SHARMIN, *constant) == [0, 0, 1, 0, 1, 1, 0, 1]
    assert spikes_of(LeakyNeuron(), *[0.5] * 6) == [0, 1, 0, 1, 0, 1]
    assert spikes_of(LeakyNeuron(strict=True), *[0.5] * 6) == [0, 0, 1, 0, 0, 1]


@pytest.mark.parametrize(("detached", "first"), [(False, 0.556), (True, 0.7)])
def test_rat_s_gradient_by_hand(detached, first):
    # I = .6, .6: slopes .6 and .8. Attached, the first input also changes how much a surrogate spike would have reset.
    node = LeakyNeuron(detach_reset=detached).build()
    node.step_mode, x = "m", torch.tensor([[0.6], [0.6]], requires_grad=True)
    spikes = node(x)
    assert spikes.flatten().tolist() == [0, 1]
    assert torch.autograd.grad(spikes.mean(), x)[0].flatten().tolist() == pytest.approx([first, 0.4])


def test_hire_s_threshold_and_leak_by_hand():
    node = LeakyNeuron(2.0, surrogate="linear", reset="subtract", strict=True, learnt=["threshold", "leak"]).build()
    x = torch.tensor([2.5], requires_grad=True)
    spikes = node(x)
    gradients = torch.autograd.grad(spikes.sum(), [x, node.v_threshold])
    # z = .25: .3 * .75 = .225 a unit of z, and dz/dtheta = -u / theta^2.
    assert [gradient.item() for gradient in gradients] == pytest.approx([0.1125, -0.225 * 2.5 / 4])


@pytest.mark.parametrize("shape", SLOPES)
def test_slopes_are_those_of_a_primitive_in_u_and_in_the_width(shape):
    # An independent check of all at once: with P' = k, d/dx P(x/w) = k(x/w)/w and d/dw P(x/w) = -(x/w) k(x/w)/w.
    grid = torch.linspace(-60, 60, 1_200_001, dtype=torch.float64)
    primitive = torch.cumulative_trapezoid(SLOPES[shape](grid), grid)

    def smooth(x, width):
        return primitive[torch.searchsorted(grid, x / width)]

    node = LeakyNeuron(surrogate=shape, learnt=["width"], width=0.7).build().double()
    u = torch.tensor([1.31], dtype=torch.float64, requires_grad=True)
    width = node.surrogate_function.width
    gradients = torch.autograd.grad(node(u).sum(), [u, width])
    x, w, h = u.detach() - 1, width.detach(), 1e-2
    expected = [(smooth(x + h, w) - smooth(x - h, w)) / (2 * h), (smooth(x, w + h) - smooth(x, w - h)) / (2 * h)]
    assert [gradient.item() for gradient in gradients] == pytest.approx([value.item() for value in expected], rel=0.02, abs=1e-3)


def test_a_neuron_that_spikingjelly_knows_is_spikingjelly_s():
    assert isinstance(LeakyNeuron().build(), neuron.IFNode)
    node, ours = LeakyNeuron(width=0.5, reset="subtract").build(), LeakyNode(LeakyNeuron(width=0.5, reset="subtract"))
    node.step_mode = ours.step_mode = "m"
    x = torch.randn(6, 50, dtype=torch.float64).requires_grad_()
    one, other = node(x), ours(x)
    assert torch.equal(one, other)
    weights = torch.randn_like(one)
    torch.testing.assert_close(*(torch.autograd.grad((spikes * weights).sum(), x)[0] for spikes in (one, other)))


def test_with_as_many_delays_as_steps_nothing_reaches_the_output():
    network = VGG(**TINY, neurons=replace(SHARMIN, surrogate="exponential"), batch_norm=False)
    for steps, reaches in ((4, False), (5, True)):
        x = torch.rand(steps, 2, 3, 8, 8).mul(5).requires_grad_()
        (gradient,) = torch.autograd.grad(SpikingClassifier(network)(x).sum(), x)
        assert bool(gradient.abs().sum() > 0) == reaches


def test_what_is_learnt_is_in_the_state_dict_and_learns():
    network = VGG(**TINY, neurons=LeakyNeuron(leak=0.9, learnt=["threshold", "leak", "width"]))
    names = {"v_threshold", "leak", "surrogate_function.width"}
    assert {f"conv1_neuron.{name}" for name in names} <= network.state_dict().keys()
    SpikingClassifier(network)(torch.rand(4, 2, 3, 8, 8)).square().sum().backward()
    assert all(dict(network.named_parameters())[f"fc1_neuron.{name}"].grad.isfinite() for name in names)


def test_dropout_is_the_same_at_all_time_steps_and_stands_before_no_pooling():
    network = VGG(**TINY, dropout=0.5, neurons=LeakyNeuron(threshold=1e-6, strict=True)).train()
    assert [name for name, _ in network.named_children() if "dropout" in name] == ["conv2_dropout", "fc1_dropout", "fc2_dropout"]
    seen = []
    network.fc1_dropout.register_forward_hook(lambda module, inputs, out: seen.append((inputs[0], out)))
    SpikingClassifier(network)(torch.rand(5, 2, 3, 8, 8))
    spikes, kept = seen[0]
    assert torch.equal(kept != 0, (spikes != 0) & (kept != 0).any(0))


def test_sums_are_t_times_means():
    torch.manual_seed(1)
    network = VGG(**TINY)
    x = torch.rand(4, 2, 3, 8, 8)
    means = SpikingClassifier(network).eval()(x)
    network.readout = "sum"
    torch.testing.assert_close(SpikingClassifier(network).eval()(x), 4 * means)


def test_spike_batch_norm_is_a_layer_without_state():
    network = VGG(**TINY, mean=[0.1, 0.2, 0.3], std=[0.5, 0.25, 0.2])
    assert not [name for name in network.state_dict() if "normalise" in name]
    x = torch.rand(2, 1, 3, 8, 8)
    for channel, (mean, std) in enumerate([(0.1, 0.5), (0.2, 0.25), (0.3, 0.2)]):
        torch.testing.assert_close(network.normalise(x)[:, :, channel], (x[:, :, channel] - mean) / std)


def test_a_plain_residual_is_a_sum():
    torch.manual_seed(2)
    convex, plain = WideResNet(10, 1), WideResNet(10, 1, residual="plain")
    plain.load_state_dict(convex.state_dict(), strict=False)
    for block in [*convex.block1, *convex.block2, *convex.block3]:
        block.mix.data.fill_(1.0)
    x = torch.rand(2, 2, 3, 8, 8)
    assert torch.equal(SpikingClassifier(convex).eval()(x), SpikingClassifier(plain).eval()(x))


@pytest.mark.parametrize(
    ("kind", "settings", "told"),
    [
        (VGG, {"channels": []}, "channels"),
        (VGG, {"channels": ["A", 4]}, "channels"),
        (VGG, {"channels": [4, "A", "A"]}, "channels"),
        (VGG, {"channels": [4, "A", 4, "A"], "image_size": 3}, "poolings"),
        (VGG, {"hidden": 0}, "hidden"),
        (VGG, {"dropout": 1}, "dropout"),
        (VGG, {"num_classes": 1}, "num_classes"),
        (VGG, {"mean": [0.5]}, "std=None"),
        (VGG, {"mean": [0.5], "std": [0.0]}, "std"),
        (VGG, {"channels": [4], "hidden": 4, "thresholds": [1.0]}, "give 3 numbers"),
        (WideResNet, {"depth": 15}, "6n"),
        (WideResNet, {"width": 0}, "width"),
        (WideResNet, {"residual": "half"}, "residual"),
        (LeakyNeuron, {"leak": 1.1}, "leak"),
        (LeakyNeuron, {"width": 0}, "width"),
        (LeakyNeuron, {"learnt": ["reset"]}, "learnt"),
        (LeakyNeuron, {"delayed": True}, "subtract"),
        (LeakyNeuron, {"surrogate": "needle"}, "surrogate"),
    ],
)
def test_bad_settings_are_told(kind, settings, told):
    with pytest.raises(InputError, match=told):
        kind(**settings)

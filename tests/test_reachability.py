from dataclasses import dataclass

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from lightning import Trainer
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from snn_sparsity.classifier import SpikingClassifier
from snn_sparsity.data.images import ImageSet, Splits
from snn_sparsity.encoders import DirectEncoder
from snn_sparsity.measure.operations import holds_state
from snn_sparsity.measure.reachability import describe_reachability, reachability, unreachable_parameters
from snn_sparsity.measure.windows import positions, reach, reachable_taps
from snn_sparsity.networks import SEWResNet
from snn_sparsity.probes import GradientTrail
from snn_sparsity.training import end_table
from snn_sparsity.training.end_table import Summary
from snn_sparsity.validation import InputError
from tests.tiny import TinyDataModule, TinyNetwork


class PlainNetwork(nn.Sequential):
    """Torch's own convolutions, one with a bias, one grouped, down to a 1x1 map: [T,N,3,8,8] to [T N,8,1,1]."""

    def __init__(self):
        super().__init__(
            nn.Flatten(0, 1),
            nn.Conv2d(3, 4, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(4), nn.ReLU(),
            nn.Conv2d(4, 4, 3, stride=2, padding=2, dilation=2, groups=2), nn.Dropout(), nn.Tanh(),
            nn.Conv2d(4, 8, 3, stride=2, padding=1),
            nn.Conv2d(8, 8, 3, padding=1),
        )  # fmt: skip


@given(st.integers(1, 9), st.integers(1, 5), st.integers(1, 3), st.integers(0, 3))
def test_reach_in_whole_numbers_is_what_positions_say(size, kernel, stride, padding):
    assume(size + 2 * padding >= kernel)
    reads = positions(size, kernel, stride, padding, dilation=1)
    inside = ((reads >= 0) & (reads < size)).any(0).nonzero().flatten().tolist()
    inside = inside or range(kernel)
    assert reach(size, kernel, stride, padding) == (len(reads), inside[0], inside[-1] + 1)


def seen_by_autograd(size, kernel, stride, padding, dilation):
    """The slow way: with ones everywhere, a tap's gradient counts the real inputs it meets."""
    weight = torch.ones(1, 1, *kernel, requires_grad=True)
    output = nn.functional.conv2d(torch.ones(1, 1, *size), weight, stride=stride, padding=padding, dilation=dilation)
    (gradient,) = torch.autograd.grad(output.sum(), weight)
    return gradient[0, 0] != 0


@pytest.mark.parametrize(
    ("size", "stride", "expected"),
    [
        ((1, 1), (1, 1), [[0, 0, 0], [0, 1, 0], [0, 0, 0]]),
        # One output, at -1, 0 and 1: this is how a 2x2 map enters the last stage of a ResNet.
        ((2, 2), (2, 2), [[0, 0, 0], [0, 1, 1], [0, 1, 1]]),
        ((2, 2), (1, 1), [[1, 1, 1], [1, 1, 1], [1, 1, 1]]),
        ((2, 1), (1, 1), [[0, 1, 0], [0, 1, 0], [0, 1, 0]]),
    ],
)
def test_padded_3x3_kernels_by_hand(size, stride, expected):
    assert reachable_taps(size, (3, 3), stride, (1, 1), (1, 1)).int().tolist() == expected


def pair(lowest, highest):
    return st.tuples(st.integers(lowest, highest), st.integers(lowest, highest))


@given(size=pair(1, 6), kernel=pair(1, 5), stride=pair(1, 3), padding=pair(0, 4), dilation=pair(1, 3))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_taps_against_autograd(size, kernel, stride, padding, dilation):
    assume(all(length + 2 * p > d * (k - 1) for length, k, p, d in zip(size, kernel, padding, dilation, strict=True)))
    expected = seen_by_autograd(size, kernel, stride, padding, dilation)
    assert torch.equal(reachable_taps(size, kernel, stride, padding, dilation), expected)


@given(size=pair(1, 3), kernel=pair(1, 5), dilation=pair(1, 2))
@settings(max_examples=40, deadline=None, derandomize=True)
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_same_padding_against_autograd(size, kernel, dilation):
    expected = seen_by_autograd(size, kernel, (1, 1), "same", dilation)
    assert torch.equal(reachable_taps(size, kernel, (1, 1), "same", dilation), expected)


def test_valid_padding_reaches_every_tap():
    assert reachable_taps((3, 4), (3, 2), (1, 1), "valid", (1, 1)).all()


def test_a_kernel_that_does_not_fit_is_refused():
    with pytest.raises(InputError, match=r"size=2 is too small for a kernel of 3, dilation 1, padding 0"):
        reachable_taps((4, 2), (3, 3), (1, 1), (0, 0), (1, 1))
    with pytest.raises(InputError, match="size=2"):
        reachability(nn.Sequential(nn.Flatten(0, 1), nn.Conv2d(3, 1, 3)), image_size=(2, 2))


def weight_gradients(network, size):
    x = torch.rand(2, 3, 3, *size, generator=torch.Generator().manual_seed(1))
    paths, weights = zip(*((path, module.weight) for path, module in network.named_modules() if isinstance(module, nn.Conv2d)), strict=True)
    output = network(x)
    gradients = torch.autograd.grad((output * torch.randn(output.shape)).sum(), weights)
    functional.reset_net(network)
    return dict(zip(paths, gradients, strict=True))


def test_gradients_of_plain_convolutions_are_zero_at_unreachable_taps_and_only_there():
    torch.manual_seed(0)
    network = PlainNetwork()
    masks = reachability(network, image_size=(8, 8))
    gradients = weight_gradients(network, (8, 8))
    assert list(masks) == list(gradients)
    assert [masks[path][0, 0].sum().item() for path in masks] == [25, 9, 4, 1]
    for path, mask in masks.items():
        # One input channel may be dead at random: every tap must be trained through some channel.
        assert torch.equal((gradients[path] != 0).any((0, 1)), mask[0, 0]), path
        assert not gradients[path][~mask].any()


def test_gradients_of_sew_resnet18_are_zero_at_unreachable_taps():
    torch.manual_seed(0)
    network = SEWResNet(depth=18, num_classes=10)
    masks = reachability(network)
    gradients = weight_gradients(network, (32, 32))
    for path, mask in masks.items():
        assert not gradients[path][~mask].any(), path
        assert (gradients[path] != 0).any((0, 1)).equal(mask[0, 0]), path


def test_sew_resnet18_at_32x32_by_hand():
    # Stage 4 starts with a 2x2 map and stride 2 (4 of 9 taps left), then has three convolutions on 1x1 maps (1 of 9).
    network = SEWResNet(depth=18, num_classes=10)
    total = sum(parameter.numel() for parameter in network.parameters())
    assert unreachable_parameters(network) == (256 * 512 * 5 + 3 * 512 * 512 * 8, total) == (6_946_816, 11_181_642)
    share = {path: mask[0, 0].float().mean().item() for path, mask in reachability(network).items()}
    assert {path: round(9 * value) for path, value in share.items() if value < 1} == {
        "layer4.0.conv1": 4, "layer4.0.conv2": 1, "layer4.1.conv1": 1, "layer4.1.conv2": 1,
    }  # fmt: skip


def test_the_line_for_people_names_the_share_and_the_remedy():
    network = SEWResNet(depth=18, num_classes=10)
    line = describe_reachability(network)
    assert line.startswith("62.1% of the 11.18 M parameters are kernel taps that only ever see padding at 32x32")
    assert "--model.network.stem cifar" in line
    assert describe_reachability(network, image_size=(64, 64)).endswith("see the image at 64x64")


@pytest.mark.parametrize("depth", [18, 50])
def test_the_cifar_stem_is_the_remedy(depth):
    assert unreachable_parameters(SEWResNet(depth=depth, num_classes=10, stem="cifar"))[0] == 0


def test_padding_made_of_real_inputs_reaches_every_tap():
    conv = nn.Conv2d(3, 2, 3, padding=1, padding_mode="replicate")
    assert reachability(nn.Sequential(nn.Flatten(0, 1), conv), image_size=(1, 1))["1"].all()


def test_a_convolution_used_at_two_sizes_gets_the_union_and_an_unused_one_is_left_out():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.unused = nn.Conv2d(3, 3, 3, stride=2, padding=1), nn.Conv2d(3, 3, 3)

        def forward(self, x):
            return self.conv(self.conv(x.flatten(0, 1)))

    masks = reachability(Shared(), image_size=(4, 4))
    assert list(masks) == ["conv"]
    assert masks["conv"].all()
    assert reachability(Shared(), image_size=(2, 2))["conv"][0, 0].int().tolist() == [[0, 0, 0], [0, 1, 1], [0, 1, 1]]


def test_a_network_without_convolutions_has_nothing_unreachable():
    assert unreachable_parameters(nn.Linear(3, 2)) == (0, 8)


@pytest.mark.parametrize("fails", [False, True])
def test_the_network_is_left_as_it_was(network, fails):
    network.train()
    network.bn1.eval()
    # Of another image size: old state must not get in the way.
    network(torch.ones(2, 1, 3, 48, 48))
    assert holds_state(network.sn1)
    modes = [module.training for module in network.modules()]
    state = {name: value.clone() for name, value in network.state_dict().items()}
    random = torch.get_rng_state()
    if fails:
        with pytest.raises(RuntimeError):
            reachability(network, channels=5)
    else:
        reachability(network)
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(not module._forward_pre_hooks and not holds_state(module) for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())


@dataclass(kw_only=True, eq=False)
class Shaped(TinyDataModule):
    """Images of another size."""

    shape: tuple[int, int, int] = (3, 32, 32)

    def load(self):
        return Splits(
            *(ImageSet(torch.randint(256, (count, *self.shape), dtype=torch.uint8), torch.arange(count) % 4) for count in (20, 8))
        )


def shaped_network(channels, node):
    """Its last convolution sees a map of a 16th of the image's size."""
    network = nn.Sequential(
        layer.Conv2d(channels, 4, 3, stride=4, padding=1), node,
        layer.Conv2d(4, 4, 3, stride=4, padding=1), layer.Conv2d(4, 4, 3, padding=1),
        layer.AdaptiveAvgPool2d(1), layer.Flatten(), layer.Linear(4, 4),
    )  # fmt: skip
    functional.set_step_mode(network, "m")
    return network


@pytest.mark.parametrize(
    ("shape", "node", "line"),
    [
        ((3, 32, 32), neuron.PSN(T=4), "every kernel tap can see the image at 32x32"),
        ((3, 32, 32), neuron.MaskedPSN(k=2, T=4, step_mode="m"), "every kernel tap can see the image at 32x32"),
        ((3, 32, 32), neuron.GatedLIFNode(T=4), "every kernel tap can see the image at 32x32"),
        ((1, 32, 32), neuron.IFNode(), "every kernel tap can see the image at 32x32"),
        ((3, 64, 64), neuron.IFNode(), "every kernel tap can see the image at 64x64"),
        # The second convolution reads -1, 0 and 1 along an axis (4 of 9 taps left), the third a map of 1x1 (1 of 9): 16 (5 + 8) weights,
        # of 112 + 148 + 148 + 20 parameters.
        ((3, 16, 16), neuron.IFNode(), f"{208 / 428:.1%} of the 0.00 M parameters"),
    ],
    ids=["PSN", "MaskedPSN", "GatedLIFNode", "grey", "large", "small"],
)
def test_a_fit_looks_at_the_network_as_its_data_are(shape, node, line, trainer_options, tmp_path, capsys):
    data = Shaped(shape=shape, encoder=DirectEncoder(num_steps=4))
    classifier = SpikingClassifier(shaped_network(shape[0], node))
    trainer = Trainer(max_epochs=1, callbacks=[Summary(str(tmp_path)), GradientTrail()], **trainer_options)
    trainer.fit(classifier, datamodule=data)
    assert f"Reachability: {line}" in capsys.readouterr().out
    assert "trail_weight_gradient_zero_reachable/04_3" in trainer.callback_metrics


def test_a_look_that_fails_stops_no_fit(trainer_options, tmp_path, capsys, monkeypatch):
    def fails(*_):
        raise RuntimeError

    monkeypatch.setattr(end_table, "describe_reachability", fails)
    trainer = Trainer(max_epochs=1, callbacks=[Summary(str(tmp_path))], **trainer_options)
    trainer.fit(SpikingClassifier(TinyNetwork()), datamodule=TinyDataModule(train_images=8))
    assert trainer.current_epoch == 1
    assert "Reachability" not in capsys.readouterr().out

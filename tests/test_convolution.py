import copy
import pickle
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based import layer
from spikingjelly.activation_based.model import sew_resnet, spiking_resnet
from torch import nn

from snn_sparsity.measure.windows import reach, reachable_taps
from snn_sparsity.networks import SEWResNet, SpikingResNet, sparse
from snn_sparsity.networks.convolution import DENSE, SpikeConv2d
from snn_sparsity.networks.layers import use_spike_layers
from snn_sparsity.networks.spike_batch_norm import SpikeBatchNorm2d

BLOCKS = {
    # Every convolution of SEW-ResNet18 on 32x32, and its density (share of inputs that are not 0).
    "stem": (3, 64, 32, 7, 2, 0.5),
    "64": (64, 64, 8, 3, 1, 0.16),
    "64, many spikes": (64, 64, 8, 3, 1, 0.52),
    "64 to 128": (64, 128, 8, 3, 2, 0.64),
    "64 to 128, shortcut": (64, 128, 8, 1, 2, 0.64),
    "128": (128, 128, 4, 3, 1, 0.16),
    "128 to 256": (128, 256, 4, 3, 2, 0.38),
    "256": (256, 256, 2, 3, 1, 0.15),
    "256 to 512": (256, 512, 2, 3, 2, 0.3),
    "256 to 512, shortcut": (256, 512, 2, 1, 2, 0.3),
    "512": (512, 512, 1, 3, 1, 0.12),
}


@pytest.fixture
def forms(monkeypatch):
    """Which of the compiled functions ran."""
    found = []
    monkeypatch.setattr(sparse, "_call", lambda name, *rest, call=sparse._call: (found.append(name), call(name, *rest)))
    return found


@pytest.fixture
def no_compiler(monkeypatch):
    monkeypatch.setattr(sparse, "compiled", lambda dtype: None)


def pair(*args, dtype=torch.float64, **options):
    """Ours and SpikingJelly's convolution with the same numbers."""
    torch.manual_seed(0)
    theirs = layer.Conv2d(*args, **options).to(dtype)
    network = nn.Sequential(copy.deepcopy(theirs))
    use_spike_layers(network)
    assert type(network[0]) is SpikeConv2d
    return network[0], theirs


def spikes(*shape, density, dtype):
    """Mostly 0, the rest 1 and 2, as where spikes are added to spikes."""
    generator = torch.Generator().manual_seed(1)
    on = torch.rand(shape, generator=generator) < density
    return (on * torch.randint(1, 3, shape, generator=generator)).to(dtype).requires_grad_()


def results(convolution, x):
    """Output and all gradients."""
    output = convolution(x)
    return [output, *torch.autograd.grad((output * torch.linspace(-1, 2, output.numel()).view_as(output).sin()).sum(),
                                         [x, *convolution.parameters()])]  # fmt: skip


def test_reach_by_hand():
    # A padded 3x3 kernel of stride 2 on four pixels: the first output hangs over the left edge, the second sees pixels 1 to 3.
    assert reach(4, kernel=3, stride=2, padding=1) == (2, 0, 3)
    # On two pixels the single output of stride 2 never sees what its first tap would.
    assert reach(2, kernel=3, stride=2, padding=1) == (1, 1, 3)


def test_an_output_of_a_2x2_map_by_hand():
    convolution = SpikeConv2d(1, 1, 3, padding=1, bias=False)
    convolution.weight = nn.Parameter(torch.arange(9.0).view(1, 1, 3, 3))
    output = convolution(torch.tensor([[[[1.0, 0.0], [0.0, 10.0]]]]))
    # The kernel's middle is 4; from the upper left, the lower right pixel lies at tap 8; from the lower right, the upper left at 0.
    assert output.flatten().tolist() == [4 + 80, 3 + 70, 1 + 50, 0 + 40]


def test_lists_by_hand(forms):
    convolution = SpikeConv2d(16, 32, 3, padding=1, bias=False)
    x = torch.zeros(1, 16, 1, 1)
    x[0, 3], x[0, 7] = 1.0, 2.0
    output = convolution(x)
    assert torch.equal(output.flatten(), convolution.weight[:, 3, 1, 1] + 2 * convolution.weight[:, 7, 1, 1])
    (gradient,) = torch.autograd.grad(output[0, 5].sum(), convolution.weight)
    assert gradient.nonzero().tolist() == [[5, 3, 1, 1], [5, 7, 1, 1]]
    assert gradient[5, 7, 1, 1].item() == 2
    assert forms == ["forward", "weight_gradient"]


@given(
    channels=st.sampled_from([(3, 5), (16, 32), (19, 64), (32, 96), (48, 160)]),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    padding=st.integers(0, 3),
    bias=st.booleans(),
    step_mode=st.sampled_from("sm"),
    density=st.sampled_from([0.0, 0.1, 0.4, 1.0]),
    images=st.integers(1, 40),
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_it_is_the_convolution(channels, height, width, kernel, stride, padding, bias, step_mode, density, images):
    assume(min(height, width) + 2 * padding >= kernel)
    ours, theirs = pair(*channels, kernel, stride, padding, bias=bias, step_mode=step_mode)
    x = spikes(*[2, images][step_mode == "s" :], channels[0], height, width, density=density, dtype=torch.float64)
    mine, reference = results(ours, x), results(theirs, x)
    torch.testing.assert_close(mine, reference, rtol=1e-10, atol=1e-10)
    unreachable = ~reachable_taps((height, width), (kernel, kernel), (stride, stride), (padding, padding), (1, 1))
    assert not mine[2][:, :, unreachable].any()


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_layer_by_layer_against_spikingjelly(name, dtype, forms):
    inputs, outputs, size, kernel, stride, density = BLOCKS[name]
    ours, theirs = pair(inputs, outputs, kernel, stride, kernel // 2, bias=False, step_mode="m", dtype=dtype)
    x = spikes(10, 4, inputs, size, size, density=density, dtype=dtype)
    mine, reference = results(ours, x), results(theirs, x)
    # The neuron behind a BatchNorm of weight 1: not one spike may flip.
    fired = [F.batch_norm(result[0].flatten(0, 1), None, None, training=True) >= 1 for result in (mine, reference)]
    assert torch.equal(*fired)
    assert fired[0].any()
    for one, other in zip(mine, reference, strict=True):
        assert (one - other).norm() <= (1e-5 if dtype == torch.float32 else 1e-13) * other.norm()
    assert forms == (["forward", "weight_gradient"] if density < DENSE and inputs > 3 and kernel > 1 else [])


@pytest.mark.parametrize("name", ["64", "64 to 128", "128 to 256", "256", "512"])
def test_without_a_compiler_it_is_the_convolution_all_the_same(name, no_compiler, forms):
    inputs, outputs, size, kernel, stride, density = BLOCKS[name]
    ours, theirs = pair(inputs, outputs, kernel, stride, kernel // 2, bias=False, step_mode="m")
    x = spikes(4, 2, inputs, size, size, density=density, dtype=torch.float64)
    torch.testing.assert_close(results(ours, x), results(theirs, x), rtol=1e-10, atol=1e-10)
    assert forms == []


@pytest.mark.parametrize("name", ["64", "128 to 256", "256", "512"])
def test_one_and_two_threads_give_the_same_bits(name):
    inputs, outputs, size, kernel, stride, density = BLOCKS[name]
    shape = sparse.Shape(
        37, size, size, inputs, *[(size - 1) // stride + 1] * 2, outputs, kernel, kernel, stride, stride, 1, 1, kernel, kernel, 0, 0
    )
    x = spikes(37, size, size, inputs, density=density, dtype=torch.float32).detach()
    weight = torch.randn(outputs, inputs, kernel, kernel)
    g = torch.randn(37, shape.out_rows, shape.out_columns, outputs)
    threads = torch.get_num_threads()
    try:
        found = []
        for torch_threads in (1, 2, 3):
            torch.set_num_threads(torch_threads)
            found.append((sparse.convolve(x, weight, shape), sparse.weight_gradient(x, g, shape)))
    finally:
        torch.set_num_threads(threads)
    for output, gradient in found[1:]:
        assert torch.equal(output, found[0][0])
        assert torch.equal(gradient, found[0][1])


def test_outputs_do_not_depend_on_the_rest_of_the_batch():
    ours, _ = pair(64, 64, 3, padding=1, dtype=torch.float32)
    x = spikes(9, 64, 4, 4, density=0.2, dtype=torch.float32)
    assert torch.equal(ours(x)[3:5], ours(x[3:5]))


def test_many_spikes_take_the_dense_form(forms):
    ours, _ = pair(16, 32, 3, padding=1, dtype=torch.float32)
    for density, compiled in ((0.99 * DENSE, True), (1.01 * DENSE, False)):
        forms.clear()
        x = torch.zeros(1000)
        x[: int(1000 * density)] = 1
        results(ours, x[torch.randperm(1000)].repeat(16).view(10, 16, 10, 10).requires_grad_())
        assert bool(forms) is compiled


def test_only_what_is_wanted_is_computed(forms):
    ours, _ = pair(16, 32, 3, padding=1, dtype=torch.float32)
    ours.requires_grad_(False)
    x = spikes(2, 16, 8, 8, density=0.1, dtype=torch.float32)
    torch.autograd.grad(ours(x).sum(), x)
    assert forms == ["forward"]


@pytest.mark.parametrize(
    "options", [{"groups": 2, "padding": 1}, {"dilation": 2, "padding": 2}, {"padding_mode": "circular", "padding": 1}, {"padding": "same"}]
)
def test_other_convolutions_are_left_alone(options, forms):
    ours, theirs = pair(32, 32, 3, step_mode="m", **options)
    x = torch.randn(2, 3, 32, 2, 2, dtype=torch.float64)
    assert torch.equal(ours(x), theirs(x))
    assert forms == []


@pytest.mark.parametrize(
    ("shape", "step_mode"), [((1, 1, 2, 2), "s"), ((1, 2, 5, 5), "s"), ((1, 1, 1, 5, 5), "s"), ((1, 1, 5, 5), "m"), ((1, 1, 2, 1, 1), "m")]
)
def test_what_does_not_fit_is_refused_as_ever(shape, step_mode):
    said = []
    for convolution in pair(1, 1, 3, step_mode=step_mode, dtype=torch.float32):
        with pytest.raises((RuntimeError, ValueError)) as error:
            convolution(torch.zeros(shape))
        said.append(str(error.value))
    assert said[0] == said[1]


def test_half_precision_and_fake_tensors_are_spikingjelly_s(forms):
    ours, _ = pair(16, 32, 3, padding=1, dtype=torch.float32)
    x = torch.zeros(2, 16, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert ours(x).dtype == torch.bfloat16
    with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert ours(mode.from_tensor(x)).shape == (2, 32, 4, 4)
    assert ours.to("meta")(x.to("meta")).shape == (2, 32, 4, 4)
    assert forms == []


def test_penalties_on_gradients_pass_through():
    ours, theirs = pair(16, 32, 3, padding=1, step_mode="m")
    x = spikes(2, 2, 16, 2, 2, density=0.3, dtype=torch.float64)

    def second(convolution):
        (first,) = torch.autograd.grad(convolution(x).pow(3).sum(), x, create_graph=True)
        return torch.autograd.grad(first.square().sum(), [x, convolution.weight])

    torch.testing.assert_close(second(ours), second(theirs))


def test_infinite_and_missing_numbers_are_not_hidden():
    ours, _ = pair(16, 32, 3, padding=1, dtype=torch.float32)
    x = torch.zeros(1, 16, 4, 4)
    x[0, 3, 1, 1] = float("nan")
    assert ours(x)[0, :, :3, :3].isnan().all()
    assert not ours(x)[0, :, 3].isnan().any()


BUILDERS = {SEWResNet: partial(sew_resnet.sew_resnet18, cnf="ADD"), SpikingResNet: spiking_resnet.spiking_resnet18}


@pytest.mark.parametrize("kind", [SEWResNet, SpikingResNet])
def test_networks_are_built_with_it_and_keep_names_shapes_and_random_numbers(kind):
    torch.manual_seed(3)
    network = kind()
    after = torch.rand(2)
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert {type(module) for module in convolutions} == {SpikeConv2d}
    assert len(convolutions) == 20
    assert {type(module) for module in network.modules() if isinstance(module, nn.BatchNorm2d)} == {SpikeBatchNorm2d}
    torch.manual_seed(3)
    theirs = BUILDERS[kind](num_classes=10, spiking_neuron=nn.Identity)
    assert torch.equal(after, torch.rand(2))
    mine = network.state_dict()
    assert list(mine) == list(theirs.state_dict())
    assert all(torch.equal(mine[name], value) for name, value in theirs.state_dict().items())
    assert all(value.is_contiguous() for value in mine.values())


def test_channels_lie_last_from_the_stem_to_the_end():
    network, seen = SEWResNet(), {}
    for path, module in network.named_modules():
        if not list(module.children()) and path != "fc":
            module.register_forward_hook(lambda _, inputs, output, path=path: seen.update({path: output}))
    network(torch.randint(0, 2, (3, 2, 3, 32, 32)).float())
    assert len(seen) > 40
    for path, output in seen.items():
        assert output.flatten(0, 1).is_contiguous(memory_format=torch.channels_last), path


def test_copies_and_pickles():
    ours, _ = pair(16, 32, 3, padding=1, dtype=torch.float32)
    x = spikes(2, 16, 4, 4, density=0.2, dtype=torch.float32)
    for twin in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert torch.equal(twin(x), ours(x))

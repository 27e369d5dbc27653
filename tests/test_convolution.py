import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based import layer
from torch import nn

from snn_sparsity.measure.windows import reachable_taps
from snn_sparsity.networks.convolution import TapConv2d, Window, skip_unreachable_taps, windows


@pytest.fixture
def linear_layers(monkeypatch):
    """How many output positions were computed as linear layers."""
    calls = []
    monkeypatch.setattr(F, "linear", lambda *args, linear=F.linear: (calls.append(args[0].shape[-1]), linear(*args))[1])
    return calls


def pair(*args, **options):
    """A convolution of each kind with the same numbers."""
    torch.manual_seed(0)
    theirs = layer.Conv2d(*args, **options).double()
    ours = copy.deepcopy(theirs)
    skip_unreachable_taps(nn.Sequential(ours))
    assert type(ours) is TapConv2d
    return ours, theirs


def test_windows_by_hand():
    # A padded 3x3 kernel of stride 2 on four pixels: the first output hangs over the left edge, the second sees pixels 1 to 3.
    assert windows(4, kernel=3, stride=2, padding=1) == [Window(slice(0, 2), slice(1, 3)), Window(slice(1, 4), slice(0, 3))]
    # An output that sees padding alone.
    assert windows(1, kernel=1, stride=2, padding=2)[0] == Window(slice(0, 0), slice(2, 2))


def test_an_output_of_a_2x2_map_by_hand():
    convolution = TapConv2d(1, 1, 3, padding=1, bias=False)
    convolution.weight = nn.Parameter(torch.arange(9.0).view(1, 1, 3, 3))
    output = convolution(torch.tensor([[[[1.0, 0.0], [0.0, 10.0]]]]))
    # The kernel's middle is 4; from the upper left, the lower right pixel lies at tap 8; from the lower right, the upper left at 0.
    assert output.flatten().tolist() == [4 + 80, 3 + 70, 1 + 50, 0 + 40]


@given(
    height=st.integers(1, 4),
    width=st.integers(1, 4),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    padding=st.integers(0, 3),
    bias=st.booleans(),
    step_mode=st.sampled_from("sm"),
)
@settings(max_examples=120, deadline=None, derandomize=True)
def test_it_is_the_convolution(height, width, kernel, stride, padding, bias, step_mode):
    assume(min(height, width) + 2 * padding >= kernel)
    ours, theirs = pair(3, 5, kernel, stride, padding, bias=bias, step_mode=step_mode)
    x = torch.randn(*[2, 3][step_mode == "s" :], 3, height, width, dtype=torch.float64, requires_grad=True)
    results = []
    for convolution in (ours, theirs):
        output = convolution(x)
        results.append([output, *torch.autograd.grad(output.sin().sum(), [x, *convolution.parameters()])])
    torch.testing.assert_close(*results)
    unreachable = ~reachable_taps((height, width), (kernel, kernel), (stride, stride), (padding, padding), (1, 1))
    assert not results[0][2][:, :, unreachable].any()


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "expected"),
    [
        (1, 3, 1, 1, [4]),
        (2, 3, 2, 1, [16]),
        (2, 3, 1, 1, [16] * 4),
        (4, 3, 2, 1, [16, 24, 24, 36]),
        (1, 1, 1, 0, [4]),
        # No padding to skip, or too large a map.
        (2, 1, 1, 0, []),
        (3, 3, 1, 1, []),
        (8, 3, 1, 1, []),
    ],
)
def test_small_maps_cost_only_what_is_real(size, kernel, stride, padding, expected, linear_layers):
    ours, _ = pair(4, 6, kernel, stride, padding, bias=False, step_mode="m")
    ours(torch.randn(2, 3, 4, size, size, dtype=torch.float64))
    assert linear_layers == expected


@pytest.mark.parametrize(
    "options", [{"groups": 2, "padding": 1}, {"dilation": 2, "padding": 2}, {"padding_mode": "circular", "padding": 1}, {"padding": "same"}]
)
def test_other_convolutions_are_left_alone(options, linear_layers):
    ours, theirs = pair(4, 6, 3, step_mode="m", **options)
    x = torch.randn(2, 3, 4, 2, 2, dtype=torch.float64)
    assert torch.equal(ours(x), theirs(x))
    assert linear_layers == []


def test_a_kernel_too_large_for_the_map_is_refused_as_ever():
    with pytest.raises(RuntimeError, match="Kernel size can't be greater"):
        TapConv2d(1, 1, 3)(torch.zeros(1, 1, 2, 2))


def test_penalties_on_gradients_pass_through():
    ours, theirs = pair(3, 4, 3, padding=1, step_mode="m")
    x = torch.randn(2, 2, 3, 2, 2, dtype=torch.float64, requires_grad=True)

    def second(convolution):
        (first,) = torch.autograd.grad(convolution(x).pow(3).sum(), x, create_graph=True)
        return torch.autograd.grad(first.square().sum(), [x, convolution.weight])

    torch.testing.assert_close(second(ours), second(theirs))

import copy

import pytest
import torch
from spikingjelly.activation_based import functional, layer
from torch import nn

from snn_sparsity.networks import spike_batch_norm
from snn_sparsity.networks.layers import use_spike_layers
from snn_sparsity.networks.spike_batch_norm import SpikeBatchNorm2d


@pytest.fixture
def calls(monkeypatch):
    """Which compiled functions ran."""
    found = []
    monkeypatch.setattr(spike_batch_norm, "_call", lambda name, *rest, call=spike_batch_norm._call: (found.append(name), call(name, *rest)))
    return found


def pair(channels=6, **options):
    """Ours and SpikingJelly's, with weights that are not 1 and 0."""
    torch.manual_seed(0)
    theirs = layer.BatchNorm2d(channels, **{"step_mode": "m"} | options)
    if theirs.affine:
        nn.init.uniform_(theirs.weight)
        nn.init.normal_(theirs.bias)
    network = nn.Sequential(copy.deepcopy(theirs))
    use_spike_layers(network)
    assert type(network[0]) is SpikeBatchNorm2d
    return network[0], theirs


def maps(*shape, seed=1):
    """Some maps [T,N,C,H,W], channels last in memory."""
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(*shape, generator=generator) + 1).movedim(2, -1).contiguous().movedim(-1, 2).requires_grad_()


def results(module, x):
    y = module(x)
    return [y, *torch.autograd.grad((y * torch.linspace(-1, 2, y.numel()).view_as(y).sin()).sum(), [x, *module.parameters()])]


def test_by_hand():
    module = SpikeBatchNorm2d(1, eps=0.0, momentum=0.5)
    y = module(torch.tensor([[[[1.0, 3.0]]]]).contiguous(memory_format=torch.channels_last))
    assert y.flatten().tolist() == [-1.0, 1.0]
    # Halfway from 0 to the mean 2, and from 1 to the unbiased variance 2.
    assert (module.running_mean.item(), module.running_var.item(), module.num_batches_tracked.item()) == (1.0, 1.5, 1)


@pytest.mark.parametrize("shape", [(3, 4, 6, 5, 7), (10, 4, 64, 8, 8), (1, 1, 3, 2, 5), (5, 4, 64, 1, 1)])
def test_as_exact_as_where_channels_lie_first(shape, calls):
    ours, theirs = pair(shape[2])
    x = maps(*shape)
    mine, plain = results(ours, x), results(theirs, x.detach().contiguous().requires_grad_())
    assert calls == ["moments", "normalise", "gradient_moments", "input_gradient"]
    assert mine[0].flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    exact = results(copy.deepcopy(theirs).double(), x.detach().double().contiguous().requires_grad_())
    for one, other, reference in zip(mine, plain, exact, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * other.abs().max().item())
        assert (one - reference).norm() <= 2e-6 * reference.norm() + 1e-6
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", [8, 1])
def test_one_and_two_threads_give_the_same_bits(size):
    ours, _ = pair(64)
    x, threads = maps(10, 12, 64, size, size), torch.get_num_threads()
    try:
        found = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(results(ours, x))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, other) for result in found[1:] for one, other in zip(result, found[0], strict=True))


def test_a_mean_far_from_zero_costs_no_digits():
    x = maps(10, 4, 6, 8, 8)
    with torch.no_grad():
        x += 1000
    ours, theirs = pair()
    exact = theirs.double()(x.detach().double())
    # A float of 1000 has digits down to 6e-5, and so have its deviations of size 2: both forms start from the same floats.
    assert (ours(x) - exact).abs().max() < 1e-4
    still = SpikeBatchNorm2d(6, step_mode="m")(torch.full_like(x, 1000.1))
    assert still.abs().max() < 0.1
    assert still.isfinite().all()


def test_in_eval_mode_only_the_input_s_gradient_is_computed_where_only_that_is_wanted():
    ours, theirs = pair()
    x = maps(2, 3, 6, 4, 4)
    for module in (ours, theirs):
        module(maps(2, 3, 6, 4, 4, seed=5))
        module.eval()
    assert "Fixed" not in type(ours(x).grad_fn.next_functions[0][0]).__name__
    for module in (ours, theirs):
        module.requires_grad_(False)
    assert "Fixed" in type(ours(x).grad_fn.next_functions[0][0]).__name__
    assert torch.equal(ours(x), theirs(x))
    g = torch.randn_like(x)
    mine, plain = (torch.autograd.grad(module(x), x, g)[0] for module in (ours, theirs))
    torch.testing.assert_close(mine, plain, rtol=1e-6, atol=1e-7)
    # A network may add to what it gets in place.
    assert torch.equal(ours(x).add_(1), ours(x) + 1)
    assert not ours(x.detach()).requires_grad
    (first,) = torch.autograd.grad(ours(x).pow(3).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    (first_of_theirs,) = torch.autograd.grad(theirs(x).pow(3).sum(), x, create_graph=True)
    torch.testing.assert_close(second, torch.autograd.grad(first_of_theirs.sum(), x)[0], rtol=1e-4, atol=1e-4)


def test_penalties_on_gradients_pass_through():
    ours, theirs = pair()
    x = maps(2, 2, 6, 3, 3)

    def second(module):
        (first,) = torch.autograd.grad(module(x).pow(3).sum(), x, create_graph=True)
        return torch.autograd.grad(first.square().sum(), [x, module.weight])

    torch.testing.assert_close(second(ours), second(theirs), rtol=1e-3, atol=1e-3)


OTHERS = {
    "eval": ({}, lambda module, x: module.eval(), maps(2, 2, 6, 3, 3)),
    "channels first": ({}, None, torch.randn(2, 2, 6, 3, 3)),
    "double": ({}, lambda module, x: module.double(), maps(2, 2, 6, 3, 3).double()),
    "running mean of all": ({"momentum": None}, None, maps(2, 2, 6, 3, 3)),
    "no weights": ({"affine": False}, None, maps(2, 2, 6, 3, 3)),
    "no statistics": ({"track_running_stats": False}, None, maps(2, 2, 6, 3, 3)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_it_was_not_made_for_is_spikingjelly_s(name, calls):
    options, change, x = OTHERS[name]
    found = []
    for module in pair(**options):
        if change:
            change(module, x)
        found.append([module(x.detach()), *module.state_dict().values()])
    assert calls == []
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_one_number_a_channel_has_no_variance():
    for module in pair():
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            module(maps(1, 1, 6, 1, 1))


def test_without_a_compiler_it_is_spikingjelly_s(monkeypatch, calls):
    monkeypatch.setattr(spike_batch_norm, "compiled", lambda: None)
    ours, theirs = pair()
    x = maps(2, 2, 6, 3, 3)
    assert torch.equal(ours(x), theirs(x))
    assert calls == []


@pytest.mark.parametrize(("shape", "step_mode"), [((2, 2, 5, 3, 3), "m"), ((2, 6, 3, 3), "m"), ((2, 2, 6, 3, 3), "s")])
def test_what_does_not_fit_is_refused_as_ever(shape, step_mode):
    said = []
    for module in pair(step_mode=step_mode):
        with pytest.raises((RuntimeError, ValueError)) as error:
            module(torch.randn(shape))
        said.append(str(error.value))
    assert said[0] == said[1]


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_single_map_behind_a_convolution_has_the_right_gradient(train, dtype):
    torch.manual_seed(1)
    plain = nn.Sequential(layer.Conv2d(3, 8, 3, padding=1), layer.BatchNorm2d(8), layer.Conv2d(8, 8, 3, padding=1), layer.BatchNorm2d(8))
    functional.set_step_mode(plain.train(train), "m")
    fast, exact = copy.deepcopy(plain).to(dtype), plain.double()
    use_spike_layers(fast)
    x, along = torch.rand(1, 1, 3, 8, 8, dtype=torch.float64), torch.randn(1, 1, 8, 8, 8, dtype=torch.float64)
    gradients = []
    for network, precision in ((fast, dtype), (exact, torch.float64)):
        given = x.to(precision).requires_grad_()
        gradients.append(torch.autograd.grad((network(given) * along.to(precision)).sum(), given)[0].double())
    assert torch.allclose(*gradients, rtol=1e-4, atol=1e-5)

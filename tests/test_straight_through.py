"""Straight through what has no derivative: by hand, found by itself, put back, and no value moves."""

import pytest
import torch
from torch import nn

from snn_sparsity.gradient_rules import StraightThrough, Unblocked
from snn_sparsity.gradient_rules.straight_through import blocked_modules


class Quantised(nn.Module):
    """Three bits of twice the input."""

    def forward(self, x):
        return (2 * x * 7).round() / 7


class Block(nn.Module):
    """Cut the graph, as a module written with numpy does."""

    def __init__(self, halve=False):
        super().__init__()
        self.halve = halve

    def forward(self, x):
        x = x.detach().square()
        return x[:, ::2] if self.halve else x


def gradient_of(network, x):
    x = x.clone().requires_grad_()
    output = network(x)
    return output.detach(), torch.autograd.grad(output.sum(), x, allow_unused=True)[0]


def test_rounding_passes_what_is_in_front_of_it_and_its_values_stay():
    network, x = Quantised(), torch.tensor([[0.1, 0.4, -0.3]])
    before, none = gradient_of(network, x)
    with StraightThrough().applied(network):
        under, gradient = gradient_of(network, x)
    assert torch.equal(under, before)
    assert none.tolist() == [[0.0, 0.0, 0.0]]
    torch.testing.assert_close(gradient, torch.full((1, 3), 2.0))  # of 2x; 7 and 1/7 cancel
    assert gradient_of(network, x)[1].tolist() == [[0.0, 0.0, 0.0]]


def test_what_has_a_derivative_keeps_it():
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    x = torch.rand(2, 3)
    own = gradient_of(network, x)[1]
    with StraightThrough().applied(network):
        assert torch.equal(gradient_of(network, x)[1], own)


def test_a_module_that_cuts_the_graph_is_found_and_passed_by():
    network = nn.Sequential(nn.Linear(2, 2), Block(), nn.Linear(2, 1))
    x = torch.tensor([[0.3, 0.8]], requires_grad=True)
    found = blocked_modules(network, lambda: network(x).sum(1))
    assert found == (["1"], [])
    with Unblocked(tuple(found[0])).applied(network):
        output, gradient = gradient_of(network, x.detach())
    assert torch.equal(output, network(x).detach())
    torch.testing.assert_close(gradient, network[2].weight @ network[0].weight)  # the identity in its place
    assert gradient_of(network, x.detach())[1] is None


def test_a_module_of_two_shapes_is_told_and_not_passed_by():
    network = nn.Sequential(nn.Linear(2, 4), Block(halve=True), nn.Linear(2, 1))
    x = torch.rand(1, 2, requires_grad=True)
    assert blocked_modules(network, lambda: network(x).sum(1)) == ([], ["1"])


@pytest.mark.parametrize("kind", ["linear", "relu"])
def test_an_honest_network_blocks_nothing(kind):
    torch.manual_seed(0)
    network = nn.Linear(2, 1) if kind == "linear" else nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    if kind == "relu":
        nn.init.constant_(network[0].bias, 2.0)  # a unit that is silent for all images would block them
    x = torch.rand(8, 2, requires_grad=True)
    assert blocked_modules(network, lambda: network(x).sum(1)) == ([], [])


@pytest.mark.parametrize(
    "flat",
    [
        lambda x: x.round_(),
        lambda x: x.floor_(),
        lambda x: x.clamp_(0, 1),
        lambda x: x.sign_(),
        lambda x: torch.round(input=x),
        lambda x: torch.clamp(input=x, min=0, max=1),
    ],
    ids=["round_", "floor_", "clamp_", "sign_", "round(input=)", "clamp(input=)"],
)
def test_in_place_and_by_keyword_too(flat):
    class Flat(nn.Module):
        def forward(self, x):
            return flat(3 * x)

    x = torch.tensor([-0.4, 0.4, 1.4], requires_grad=True)
    expected = flat(3 * x.detach())
    with StraightThrough().applied(network := Flat()):
        y = network(x)
    assert torch.equal(y, expected)
    assert torch.autograd.grad(y.sum(), x)[0].tolist() == [3, 3, 3]

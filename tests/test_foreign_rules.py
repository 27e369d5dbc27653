"""Surrogate rules on networks of other libraries and step modes: no logit moves, the gradient does, everything is put back."""

import warnings

import pytest
import snntorch
import torch
from snntorch import surrogate as snntorch_surrogate
from spikingjelly.activation_based import functional, neuron
from torch import nn

from snn_sparsity.audit.collect.adapter import Adapted, reset
from snn_sparsity.gradient_rules import ASSG, BPTR, HART, PDSG, RGA, DetachedReset, PoolGradient, SurrogateShape
from snn_sparsity.gradient_rules.base import own_functions, spiking_neurons
from snn_sparsity.networks.leaky import LeakyNeuron
from snn_sparsity.validation import InputError

STEPS = 4
SURROGATES = [SurrogateShape("sigmoid", 3.0), ASSG(), ASSG("rect"), PDSG()]
each_surrogate = pytest.mark.parametrize("rule", SURROGATES, ids=repr)


class Loop(nn.Module):
    """A network with its own loop over time: images [N,3,4,4] to logits [N,3]; the neuron lies inside another module."""

    def __init__(self, node, states=0):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(48, 12))
        self.inside = nn.ModuleDict({"node": node})
        self.read_out = nn.Linear(12, 3)
        self.states = states

    def forward(self, x):
        node, total = self.inside["node"], 0
        state = node.reset_mem() if self.states else ()
        state = state if isinstance(state, tuple) else (state,)
        for _ in range(STEPS):
            current = 2 * self.body(x)
            if self.states:
                spikes, *state = node(current, *state)
            else:
                spikes = node(current)
            total = total + self.read_out(spikes)
        return total / STEPS


def of_snntorch():
    warnings.simplefilter("ignore")
    yield "Leaky", lambda: Loop(snntorch.Leaky(beta=0.7, init_hidden=True))
    yield "Leaky with states", lambda: Loop(snntorch.Leaky(beta=0.7), states=1)
    yield (
        "Leaky, zero",
        lambda: Loop(snntorch.Leaky(0.7, init_hidden=True, reset_mechanism="zero", spike_grad=snntorch_surrogate.fast_sigmoid())),
    )
    yield "Leaky, at once", lambda: Loop(snntorch.Leaky(0.7, init_hidden=True, reset_delay=False, learn_beta=True, learn_threshold=True))
    yield "Lapicque", lambda: Loop(snntorch.Lapicque(beta=0.7, init_hidden=True))
    yield "Synaptic", lambda: Loop(snntorch.Synaptic(alpha=0.5, beta=0.7), states=2)
    yield "Alpha", lambda: Loop(snntorch.Alpha(alpha=0.8, beta=0.7, init_hidden=True))
    yield "RLeaky", lambda: Loop(snntorch.RLeaky(beta=0.7, linear_features=12, init_hidden=True))
    yield "RSynaptic", lambda: Loop(snntorch.RSynaptic(alpha=0.5, beta=0.7, linear_features=12, init_hidden=True))
    yield "no surrogate", lambda: Loop(snntorch.Leaky(beta=0.7, init_hidden=True, surrogate_disable=True))


def of_spikingjelly():
    yield "IF", lambda: Loop(neuron.IFNode())
    yield "LIF", lambda: Loop(neuron.LIFNode(tau=1.5))
    yield "PLIF", lambda: Loop(neuron.ParametricLIFNode(init_tau=1.5))
    yield (
        "leaky",
        lambda: Loop(LeakyNeuron(leak=0.7, surrogate="linear", reset="subtract", strict=True, learnt=["threshold", "width"]).build()),
    )


FOREIGN = [pytest.param(make, id=name) for name, make in [*of_snntorch(), *of_spikingjelly()]]


def measured(model, x):
    """Logits and the gradient at the image."""
    adapted, x = Adapted(model).eval(), x.clone().requires_grad_()
    logits = adapted(x.unsqueeze(0))
    gradient = torch.autograd.grad(logits[:, 0].sum(), x, allow_unused=True)[0] if logits.requires_grad else None
    return logits.detach(), torch.zeros_like(x) if gradient is None else gradient


def parts(model):
    """Every function and submodule of every module, by identity; what a neuron remembers aside."""
    return {
        (name, key): id(value)
        for name, module in model.named_modules()
        for key, value in [*vars(module).items(), *module._modules.items()]
        if callable(value)
    }


def images(seed=1):
    return torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(seed))


@each_surrogate
@pytest.mark.parametrize("make", FOREIGN)
def test_no_logit_moves_and_the_gradient_does(make, rule):
    model, x = make(), images()
    logits, gradient = measured(model, x)
    before = parts(model)
    with rule.applied(model):
        for _ in range(2):  # what a rule gathers over passes moves none either
            under, changed = measured(model, x)
            assert torch.equal(under, logits)
            assert changed.isfinite().all()
            assert changed.any()
            assert not torch.allclose(changed, gradient)
    again, restored = measured(model, x)
    assert torch.equal(again, logits)
    assert torch.equal(restored, gradient)
    assert parts(model) == before


def test_a_rule_with_the_network_s_own_surrogate_changes_nothing():
    x = images()
    # snnTorch's atan(alpha) has the slope alpha/2 / (1 + (pi/2 alpha u)^2): ours.
    model = Loop(snntorch.Leaky(beta=0.7, init_hidden=True, spike_grad=snntorch_surrogate.atan(alpha=3.0)))
    logits, gradient = measured(model, x)
    with SurrogateShape("atan", 3.0).applied(model):
        under, same = measured(model, x)
    assert torch.equal(under, logits)
    torch.testing.assert_close(same, gradient)


@each_surrogate
def test_single_steps_have_the_gradient_of_multi_steps(rule):
    x = images()

    class Multi(Loop):
        def forward(self, x):
            node = self.inside["node"]
            node.step_mode = "m"
            return self.read_out(node((2 * self.body(x)).expand(STEPS, -1, -1))).mean(0)

    single, multi = Loop(neuron.LIFNode(tau=1.5)), Multi(neuron.LIFNode(tau=1.5))
    with rule.applied(single):
        found = [measured(single, x)[1] for _ in range(3)]
    multi.inside["node"].step_mode = "m"
    with rule.applied(multi):
        expected = [measured(multi, x)[1] for _ in range(3)]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_the_reset_can_be_attached_in_single_step_mode_and_not_in_snntorch():
    x, model = images(), Loop(neuron.IFNode(detach_reset=True))
    attached = Loop(neuron.IFNode(detach_reset=False))
    with DetachedReset(False).applied(model):
        torch.testing.assert_close(measured(model, x), measured(attached, x))
    model = Loop(snntorch.Leaky(beta=0.7, init_hidden=True))
    with (
        pytest.raises(InputError, match=r"neuron 'inside\.node' is snnTorch's, whose reset is always detached"),
        DetachedReset().applied(model),
    ):
        pass


@pytest.mark.parametrize("rule", [RGA(), BPTR(), HART()], ids=repr)
@pytest.mark.parametrize("node", [neuron.LIFNode(), snntorch.Leaky(beta=0.7, init_hidden=True)], ids=["spikingjelly", "snntorch"])
def test_rates_say_that_they_need_all_steps(rule, node):
    with pytest.raises(InputError, match=r"'inside\.node' takes one time step a call"), rule.applied(Loop(node)):
        pass


def test_neurons_inside_other_modules_are_reset_and_other_networks_are_not():
    model, other = (Loop(snntorch.Leaky(beta=0.7, init_hidden=True)) for _ in range(2))
    other(images())
    before = other.inside["node"].mem.clone()
    model(images())
    assert model.inside["node"].mem.any()
    reset(model)
    assert not model.inside["node"].mem.any()
    assert torch.equal(other.inside["node"].mem, before)
    assert before.any()


def test_derivatives_of_one_s_own_are_named():
    class SuperSpike(torch.autograd.Function):
        @staticmethod
        def forward(ctx, u):
            ctx.save_for_backward(u)
            return (u > 0).to(u)

        @staticmethod
        def backward(ctx, gradient):
            return gradient / (1 + ctx.saved_tensors[0].abs()) ** 2

    x = torch.rand(2, 3, requires_grad=True)
    assert own_functions(nn.functional.relu(SuperSpike.apply(2 * x)).sum()) == ["SuperSpike"]
    assert own_functions(nn.Linear(3, 2)(x)) == []
    assert own_functions(x.detach()) == []
    functional.reset_net(node := neuron.IFNode())
    assert list(spiking_neurons(nn.Sequential(nn.Flatten(), node))) == ["1"]


def test_poolings_and_neurons_whose_gradient_a_rule_cannot_give_are_refused():
    maps = torch.rand(1, 2, 5, 5, requires_grad=True)
    for pool in (nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.AvgPool2d(2, divisor_override=3)):
        with pytest.raises(InputError, match="its own gradient is not 1 / kernel area"), PoolGradient("uniform").applied(pool):
            pool(maps)
    node = LeakyNeuron(strict=True, delayed=True, reset="subtract").build()
    node.step_mode = "m"
    with pytest.raises(InputError, match="HART: LeakyNode fires by the potential of the step before"), HART().applied(node):
        node(torch.rand(3, 2))

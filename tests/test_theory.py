from functools import partial
from math import atan, pi

import pytest
import torch
from spikingjelly.activation_based import neuron
from spikingjelly.activation_based import surrogate as spikingjelly_surrogate

from snn_sparsity.reproduction.two_layer import (
    firing_rate,
    instantaneous,
    integrate_and_fire,
    output_chain,
    printed_input_gradient,
    printed_w1_gradient,
    printed_w2_gradient,
    shared_chain,
    surrogate_slope,
)

PRINTED = (printed_input_gradient, printed_w1_gradient, printed_w2_gradient)
centred = partial(instantaneous, centre=1.0)


def by_autograd(s, w1, w2, neuron=instantaneous):
    leaves = [tensor.clone().requires_grad_() for tensor in (s, w1, w2)]
    return torch.autograd.grad(firing_rate(*leaves, neuron), leaves)


def as_printed(s, w1, w2, threshold=1.0):
    return [gradient(s, w1, w2, threshold) for gradient in PRINTED]


def random_network(seed, hidden=5, steps=7, inputs=6):
    generator = torch.Generator().manual_seed(seed)
    s = torch.randint(0, 2, (steps, inputs), generator=generator).double()
    w1 = torch.randn(hidden, inputs, generator=generator, dtype=torch.float64)
    w2 = torch.randn(hidden, generator=generator, dtype=torch.float64)
    return s, w1, w2


def both_fire(s, w1, w2):
    hidden = instantaneous(s @ w1.T)
    return 0 < hidden.mean() < 1 and 0 < instantaneous(hidden @ w2).mean() < 1


def test_a_neuron_fires_at_its_threshold_and_hard_resets():
    assert instantaneous(torch.tensor([0.99, 1.0, 1.01])).tolist() == [0, 1, 1]
    assert integrate_and_fire(torch.tensor([0.75, 0.75, 0.75, 0.25])).tolist() == [0, 1, 0, 1]


def test_two_steps_of_one_neuron_by_hand():
    # z1 = (2, 0), so y1 = (1, 0); z2 = (1.5, 0), so y2 = (1, 0) and the rate is one half.
    s, w1, w2 = (torch.tensor(values, dtype=torch.float64) for values in ([[1.0], [0.0]], [[2.0]], [1.5]))
    assert firing_rate(s, w1, w2).item() == 0.5
    first = 0.5 * 1.5 / (1 + (1.5 * pi) ** 2) / (1 + (2 * pi) ** 2)
    to_input, to_w1, to_w2 = as_printed(s, w1, w2)
    assert to_input.flatten().tolist() == pytest.approx([2 * first, 2 * 0.75], rel=1e-12)
    assert to_w1.item() == pytest.approx(first, rel=1e-12)
    assert to_w2.item() == pytest.approx(0.5 / (1 + (1.5 * pi) ** 2), rel=1e-12)


@pytest.mark.parametrize("x", [-2.0, 0.0, 0.3])
def test_the_surrogate_is_the_slope_of_the_arctangent(x):
    step = 1e-6
    assert surrogate_slope(torch.tensor(x, dtype=torch.float64)).item() == pytest.approx(
        (atan(pi * (x + step)) - atan(pi * (x - step))) / pi / (2 * step), rel=1e-6
    )


@pytest.mark.parametrize("hidden", [1, 5])
@pytest.mark.parametrize("threshold", [0.5, 1.0])
def test_printed_forms_are_exact_without_memory_and_with_the_surrogate_at_the_input(hidden, threshold):
    for seed in range(10):
        network = random_network(seed, hidden)
        exact = by_autograd(*network, partial(instantaneous, threshold=threshold))
        for printed, true in zip(as_printed(*network, threshold), exact, strict=True):
            torch.testing.assert_close(printed, true, rtol=1e-12, atol=0)


def test_printed_forms_drop_the_recurrence():
    network = random_network(3)
    assert both_fire(*network)
    for printed, true in zip(as_printed(*network), by_autograd(*network, integrate_and_fire), strict=True):
        assert (printed - true).norm() > 0.1 * true.norm()


def test_printed_forms_take_the_surrogate_far_from_the_threshold():
    network = random_network(3)
    assert firing_rate(*network) == firing_rate(*network, centred)
    for printed, true in zip(as_printed(*network), by_autograd(*network, centred), strict=True):
        assert (printed - true).norm() > 0.1 * true.norm()


def test_one_time_step_leaves_nothing_to_remember():
    network = random_network(0, steps=1)
    for printed, true in zip(as_printed(*network), by_autograd(*network, integrate_and_fire), strict=True):
        torch.testing.assert_close(printed, true, rtol=1e-12, atol=0)


def test_only_the_recurrence_sends_a_spike_back_to_earlier_inputs():
    def last_output(neuron):
        s = torch.tensor([[1.0], [1.0]], requires_grad=True)
        return torch.autograd.grad(neuron(s * 0.6)[-1].sum(), s)[0].flatten().tolist()

    assert last_output(instantaneous) == pytest.approx([0, 0.6 / (1 + (0.6 * pi) ** 2)])
    assert last_output(integrate_and_fire) == pytest.approx([0.6 / (1 + (1.2 * pi) ** 2)] * 2)


def test_the_printed_centre_favours_silent_neurons_and_the_other_those_at_threshold():
    def passes(centre):
        z = torch.tensor([0.0, 1.0], requires_grad=True)
        return torch.autograd.grad(instantaneous(z, centre=centre).sum(), z)[0].tolist()

    tenth = 1 / (1 + pi**2)
    assert passes(0.0) == pytest.approx([1, tenth])
    assert passes(1.0) == pytest.approx([tenth, 1])


@pytest.mark.parametrize("threshold", [0.7, 1.0])
def test_integrate_and_fire_is_spikingjellys(threshold):
    torch.manual_seed(0)
    currents = torch.randn(9, 40, dtype=torch.float64, requires_grad=True)
    weights = torch.randn_like(currents)
    node = neuron.IFNode(threshold, 0.0, spikingjelly_surrogate.ATan(alpha=2.0), detach_reset=True, step_mode="m")
    theirs, ours = node(currents), integrate_and_fire(currents, threshold, centre=threshold)
    assert torch.equal(ours, theirs)
    assert 0 < ours.mean() < 1
    for mine, other in zip(*(torch.autograd.grad((y * weights).sum(), currents) for y in (ours, theirs)), strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("model", [instantaneous, centred, integrate_and_fire])
def test_sparsity_in_the_shared_chain_reaches_both_gradients(model):
    s, w1, w2 = random_network(3)
    w2[3] = 0
    chain = shared_chain(s, w1, w2)
    assert chain[:, 3].eq(0).all()
    assert chain.eq(0).sum() == len(s)
    to_input, to_w1, to_w2 = by_autograd(s, w1, w2, model)
    assert to_w1[3].eq(0).all()
    assert to_w1[[0, 1, 2, 4]].ne(0).any(1).all()
    # The input's gradient is then that of the network without the neuron; w2's own shares only the shorter chain.
    kept = [0, 1, 2, 4]
    torch.testing.assert_close(to_input, by_autograd(s, w1[kept], w2[kept], model)[0])
    assert to_w2[3] != 0


@pytest.mark.parametrize("model", [instantaneous, centred, integrate_and_fire])
def test_a_cut_output_silences_the_input_and_the_first_layer(model):
    s, w1, w2 = random_network(1)
    to_input, to_w1, to_w2 = by_autograd(s, w1, torch.zeros_like(w2), model)
    assert to_input.eq(0).all()
    assert to_w1.eq(0).all()
    assert to_w2.ne(0).any()


def test_null_columns_of_w1_are_null_entries_of_the_input_gradient_alone():
    s, w1, w2 = random_network(3)
    w1[:, 4] = 0
    to_input, to_w1, _ = as_printed(s, w1, w2)
    assert to_input.eq(0).all(0).tolist() == [False, False, False, False, True, False]
    assert to_w1[:, 4].ne(0).all()


def test_sparsity_outside_the_shared_chain_does_not_travel():
    # Without a single spike no weight learns, yet the input's gradient is as dense as can be.
    s, w1, w2 = random_network(3)
    to_input, to_w1, to_w2 = by_autograd(torch.zeros_like(s), w1, w2)
    assert to_w1.eq(0).all()
    assert to_w2.eq(0).all()
    assert to_input.ne(0).all()


def test_the_chains_are_the_printed_factors():
    s, w1, w2 = random_network(3, hidden=1)
    fired = (s @ w1[0] >= 1).double()
    outer = 1 / 7 / (1 + (pi * w2[0] * fired) ** 2)
    torch.testing.assert_close(output_chain(s, w1, w2), outer)
    torch.testing.assert_close(shared_chain(s, w1, w2)[:, 0], outer * w2[0] / (1 + (pi * (s @ w1[0])) ** 2))

"""Backward rules, by hand, against slow twins, and on whole networks: no logit moves, the gradient does, everything is put back."""

import importlib
import inspect
import math
import pkgutil
import statistics
from contextlib import ExitStack

import pytest
import torch
import torch.nn.functional as F
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import nn

from snn_sparsity import gradient_rules
from snn_sparsity.attacks import EOT, FGSM, MDSE, PGD
from snn_sparsity.attacks.base import input_gradient
from snn_sparsity.attacks.bpda import BPDA
from snn_sparsity.attacks.eot import Drawn
from snn_sparsity.attacks.mdse import Mixed, Weights
from snn_sparsity.attacks.targets import SpikeTarget
from snn_sparsity.batch import SpikeBatch
from snn_sparsity.classifier import SpikingClassifier
from snn_sparsity.gradient_rules import (
    ASSG,
    BPTR,
    HART,
    PDSG,
    RGA,
    DetachedReset,
    GradientRule,
    PoolGradient,
    StraightThrough,
    SurrogateShape,
    Unblocked,
)
from snn_sparsity.gradient_rules.adaptive import SHARPNESS
from snn_sparsity.gradient_rules.rates import rate_slope
from snn_sparsity.gradient_rules.surrogates import SHAPES
from snn_sparsity.measure.gradients import record_gradients
from snn_sparsity.measure.saturation import membrane_distance
from snn_sparsity.networks import IFNeuron, LeakyNeuron, SEWResNet, SpikingResNet
from snn_sparsity.validation import InputError
from tests.tiny import TinyNetwork

# All but the neurons' own, atan with alpha 2 and detached reset, which must change nothing.
OWN = [SurrogateShape("atan", 2.0), DetachedReset(True), PoolGradient("own"), PoolGradient("first")]
RULES = [
    *(SurrogateShape(shape, 3.0) for shape in SHAPES),
    ASSG(),
    PDSG(),
    RGA(),
    BPTR(),
    HART(),
    DetachedReset(False),
    PoolGradient("ties"),
    PoolGradient("softmax"),
    PoolGradient("uniform"),
    PoolGradient("random"),
]
each_rule = pytest.mark.parametrize("rule", RULES, ids=repr)


def test_the_table_holds_every_rule_of_the_package():
    found, left = set(), [GradientRule]
    for info in pkgutil.iter_modules(gradient_rules.__path__, "snn_sparsity.gradient_rules."):
        importlib.import_module(info.name)
    while left:
        for child in left.pop().__subclasses__():
            left.append(child)
            if child.__module__.startswith("snn_sparsity.") and not inspect.isabstract(child):
                found.add(child)
    assert found == {type(rule) for rule in RULES} | {StraightThrough, Unblocked}, "the last two have a file of tests of their own"
    assert {type(rule)() for rule in RULES}, "every setting has a default"


# Whole networks ------------------------------------------------------------------------------------------------------------


def spikes(count, steps=4, size=32, seed=1):
    return torch.randint(0, 2, (count, steps, 3, size, size), generator=torch.Generator().manual_seed(seed)).float()


def target_of(network, x):
    """The network in eval mode, BatchNorm's statistics those of x, so that its neurons fire."""
    classifier = SpikingClassifier(network).train()
    with torch.no_grad():
        for _ in range(4):
            classifier(x.transpose(0, 1))
    return SpikeTarget(classifier.eval())


def alike(one, other):
    """The cosine between two gradients: their lengths may differ by orders of magnitude."""
    return F.cosine_similarity(one.flatten(), other.flatten(), dim=0)


@pytest.fixture(scope="module", params=["tiny", "sew18"])
def attacked(request):
    torch.manual_seed(0)
    network = TinyNetwork() if request.param == "tiny" else SEWResNet(depth=18, num_classes=4)
    x, labels = spikes(2), torch.tensor([0, 1])
    target = target_of(network, x)
    gradient, logits = input_gradient(target.logits, x, labels)
    return target, x, labels, gradient, logits


@each_rule
def test_no_logit_moves_and_the_gradient_does(attacked, rule):
    target, x, labels, gradient, logits = attacked
    with rule.applied(target.network):
        changed, under = input_gradient(target.logits, x, labels)
        assert torch.equal(under, logits)
        assert torch.equal(target.judge(x), logits)
    assert changed.isfinite().all()
    assert changed.any()
    assert alike(changed, gradient) < 0.99
    again, _ = input_gradient(target.logits, x, labels)
    assert torch.equal(again, gradient)


@pytest.mark.parametrize("rule", OWN, ids=repr)
def test_a_networks_own_rule_changes_nothing(attacked, rule):
    target, x, labels, gradient, logits = attacked
    with rule.applied(target.network):
        same, under = input_gradient(target.logits, x, labels)
    assert torch.equal(under, logits)
    torch.testing.assert_close(same, gradient)


def pieces(network):
    """Every attribute, submodule and hook of every module, by identity; the neurons' memories aside."""
    return {
        (name, attribute): [(key, id(item)) for key, item in value.items()] if isinstance(value, dict) else id(value)
        for name, module in network.named_modules()
        for attribute, value in vars(module).items()
        if attribute not in ("_memories", "_v_seq", "v_seq")
    }


@each_rule
def test_everything_is_put_back_also_after_an_exception(rule):
    network = TinyNetwork().eval()
    network.sn2.train()
    network.maxpool.forward = network.maxpool.forward  # somebody else's patch survives
    before = pieces(network)
    with rule.applied(network):
        assert pieces(network) != before
        network(spikes(1).transpose(0, 1))
    assert pieces(network) == before
    with pytest.raises(ZeroDivisionError), rule.applied(network):
        raise ZeroDivisionError
    assert pieces(network) == before


@pytest.mark.parametrize("grads_off", [torch.no_grad, torch.inference_mode])
@each_rule
def test_inside_an_evaluation_loop(attacked, rule, grads_off):
    target, x, labels, _, logits = attacked
    if isinstance(target.network.network, SEWResNet):
        x, labels, logits = x[:1], labels[:1], logits[:1]
    with rule.applied(target.network):
        expected, _ = input_gradient(target.logits, x, labels)
    with grads_off(), rule.applied(target.network):
        torch.testing.assert_close(target.logits(x), logits)
        gradient, _ = input_gradient(target.logits, x, labels)
    assert torch.equal(gradient, expected)


def test_rules_compose():
    x, labels = spikes(2), torch.tensor([0, 1])
    torch.manual_seed(0)
    target = target_of(TinyNetwork(), x)
    surrogate_rule, pool_rule = SurrogateShape("sigmoid", 4.0), PoolGradient("ties")

    def gradient(*rules):
        with ExitStack() as stack:
            for rule in rules:
                stack.enter_context(rule.applied(target.network))
            return input_gradient(target.logits, x, labels)[0]

    both = gradient(surrogate_rule, pool_rule)
    assert torch.equal(both, gradient(pool_rule, surrogate_rule))
    for other in (gradient(), gradient(surrogate_rule), gradient(pool_rule)):
        assert not torch.allclose(both, other)
    assert torch.equal(gradient(PoolGradient("uniform"), pool_rule), gradient(pool_rule)), "the innermost rule wins"
    assert torch.equal(gradient(HART(), RGA()), gradient(RGA()))
    assert torch.equal(gradient(RGA(), HART()), gradient(HART()))


def same_weights(network, **settings):
    """A network with neurons of other settings and the same weights."""
    other = TinyNetwork()
    other.load_state_dict(network.state_dict())
    other.sn1, other.sn2 = IFNeuron(**settings).build(), IFNeuron(**settings).build()
    functional.set_step_mode(other, "m")
    return other.eval()


@pytest.mark.parametrize(
    ("rule", "settings"),
    [
        (SurrogateShape("atan", 5.0), {"surrogate": "atan", "alpha": 5.0}),
        (SurrogateShape("sigmoid", 4.0), {"surrogate": "sigmoid", "alpha": 4.0}),
        (SurrogateShape("rect", 1.0), {"surrogate": "rect", "alpha": 1.0}),
        (SurrogateShape("triangle", 1.0), {"surrogate": "piecewise_quadratic", "alpha": 1.0}),
        (DetachedReset(False), {"detach_reset": False}),
    ],
    ids=repr,
)
@pytest.mark.parametrize("reset", [0.0, None])
def test_a_rule_equals_a_network_built_that_way(rule, settings, reset):
    torch.manual_seed(0)
    x, labels = spikes(2), torch.tensor([0, 1])
    network = target_of(TinyNetwork(), x).network.network
    plain = SpikeTarget(SpikingClassifier(same_weights(network, reset=reset)).eval())
    built = SpikeTarget(SpikingClassifier(same_weights(network, reset=reset, **settings)).eval())
    with rule.applied(plain.network):
        gradient, _ = input_gradient(plain.logits, x, labels)
    torch.testing.assert_close(gradient, input_gradient(built.logits, x, labels)[0])


@pytest.mark.parametrize("rule", [ASSG(), RGA(), HART(), PoolGradient("softmax")], ids=repr)
def test_spiking_resnet_with_its_additions_in_place(rule):
    torch.manual_seed(0)
    x = spikes(1, steps=2)
    target = target_of(SpikingResNet(depth=18, num_classes=4), x)
    gradient, logits = input_gradient(target.logits, x, torch.tensor([0]))
    with rule.applied(target.network):
        changed, under = input_gradient(target.logits, x, torch.tensor([0]))
    assert torch.equal(under, logits)
    assert alike(changed, gradient) < 0.99


@each_rule
@pytest.mark.parametrize(
    "node",
    [
        neuron.IFNode(v_reset=None),
        neuron.IFNode(v_reset=-0.25, v_threshold=0.5, detach_reset=True),
        neuron.LIFNode(tau=3.0),
        neuron.LIFNode(tau=3.0, decay_input=False, v_reset=None, detach_reset=True),
        neuron.ParametricLIFNode(init_tau=3.0, decay_input=False),
        IFNeuron().build(),
    ],
    ids=repr,
)
def test_every_kind_of_neuron_fires_as_before(rule, node):
    node.step_mode = "m"
    # Eighths: now and then exactly at the threshold, where a neuron fires.
    x = torch.randn(6, 3, 4, 2, 2, generator=torch.Generator().manual_seed(0)).mul(8).round().div(8).requires_grad_()

    def fired():
        functional.reset_net(node)
        return node(x)

    plain = fired()
    with rule.applied(node):
        under = fired()
        (gradient,) = torch.autograd.grad(under.sum(), x)
    assert torch.equal(under, plain)
    assert 0 < plain.mean() < 1
    assert gradient.isfinite().all()


def test_networks_a_rule_cannot_handle_are_refused():
    for rule in RULES:
        if not isinstance(rule, PoolGradient):
            with pytest.raises(InputError, match="there is no spiking neuron that rules know"), rule.applied(nn.Linear(1, 1)):
                pass
            for node in (neuron.SimpleIFNode(step_mode="m"), neuron.ILIFNode(step_mode="m"), neuron.KLIFNode(step_mode="m")):
                network = nn.Sequential(neuron.IFNode(step_mode="m"), node)
                before = pieces(network)
                with pytest.raises(InputError, match=f"neuron '1' is {type(node).__name__}: rules know"), rule.applied(network):
                    pass
                assert pieces(network) == before


@pytest.mark.parametrize("rule", [RGA(), BPTR(), HART()], ids=repr)
def test_rates_need_all_time_steps_in_one_call(rule):
    with (
        pytest.raises(InputError, match="neuron '1' takes one time step a call"),
        rule.applied(nn.Sequential(nn.Flatten(), neuron.IFNode())),
    ):
        pass


def test_a_network_without_a_window_stays_as_it_is():
    network = nn.Sequential(nn.Conv2d(3, 3, 3), nn.AdaptiveAvgPool2d(1))
    before = pieces(network)
    with PoolGradient().applied(network):
        assert pieces(network) == before
    network = TinyNetwork()
    before = pieces(network)
    with PoolGradient("own").applied(network):
        assert pieces(network) == before


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: SurrogateShape("step"),
        lambda: SurrogateShape(alpha=0),
        lambda: ASSG("step"),
        lambda: ASSG(vanishing_degree=1),
        lambda: ASSG(decay=1.5),
        lambda: ASSG(gamma=-1),
        lambda: PoolGradient("median"),
        lambda: PoolGradient("softmax", temperature=0),
        lambda: PoolGradient("random", seed=-1),
        lambda: PoolGradient("random", seed=0.5),
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match="is not allowed"):
        wrong()


# Surrogates ----------------------------------------------------------------------------------------------------------------

PRIMITIVES = {
    "atan": lambda u, a: math.atan(math.pi / 2 * a * u) / math.pi,
    "sigmoid": lambda u, a: 1 / (1 + math.exp(-a * u)),
    "rect": lambda u, a: min(max(a * u, -0.5), 0.5),
    "triangle": lambda u, a: a * u - math.copysign((a * u) ** 2 / 2, u) if abs(a * u) < 1 else math.copysign(0.5, u),
    "gaussian": lambda u, a: math.erf(a * u / math.sqrt(2)) / 2,
}


@pytest.mark.parametrize("alpha", [0.5, 2.0, 8.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_is_the_slope_of_a_function_that_rises_by_one(shape, alpha):
    primitive, h = PRIMITIVES[shape], 1e-6
    points = torch.linspace(-2.51, 2.49, 101, dtype=torch.float64)
    expected = [(primitive(u + h, alpha) - primitive(u - h, alpha)) / (2 * h) for u in points.tolist()]
    torch.testing.assert_close(SHAPES[shape](points, alpha), torch.tensor(expected, dtype=torch.float64), rtol=1e-7, atol=1e-7)
    assert primitive(1e4, alpha) - primitive(-700 / alpha, alpha) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(("shape", "peak"), [("atan", 2), ("sigmoid", 1), ("rect", 4), ("triangle", 4), ("gaussian", 1.5958)])
def test_the_peak_of_each_shape_at_alpha_four(shape, peak):
    assert SHAPES[shape](torch.zeros(1), 4.0).item() == pytest.approx(peak, abs=1e-4)


def slopes(node, x):
    """``ds[t]/dx[t]`` of every neuron and step: the surrogate's slope, since no time lies between."""
    functional.reset_net(node)
    x = x.clone().requires_grad_()
    fired = node(x)
    return torch.stack([torch.autograd.grad(s.sum(), x, retain_graph=True)[0][t] for t, s in enumerate(fired)])


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_adaptive_sharpness_against_a_scalar_loop():
    rule = ASSG(vanishing_degree=0.8, decay=0.75, gamma=2.0)
    node = neuron.IFNode(step_mode="m")
    omega = 2 / math.pi * math.tan(math.pi * 0.8 / 2)
    state = {}
    with rule.applied(node):
        for iteration in range(3):
            x = noise(2, 3, 5, seed=iteration)
            distance = membrane_distance(node, x)
            found = slopes(node, x)
            with torch.no_grad():
                node(noise(2, 3, 5, seed=9))  # looking is no iteration
            for place in torch.cartesian_prod(torch.arange(2), torch.arange(3), torch.arange(5)).tolist():
                u = distance[tuple(place)].item()
                mean, deviation = state.get(tuple(place), (1.0, 0.0))
                mean = 0.75 * mean + 0.25 * abs(u)
                deviation = 0.75 * deviation + 0.25 * abs(abs(u) - mean)
                state[tuple(place)] = mean, deviation
                alpha = omega / (mean + 2.0 * deviation + 1e-4)
                assert found[tuple(place)].item() == pytest.approx(alpha / 2 / (1 + (math.pi / 2 * alpha * u) ** 2), rel=1e-9)


@pytest.mark.parametrize("lost", [0.3, 0.87])
@pytest.mark.parametrize("shape", SHAPES)
def test_each_shape_s_sharpness_puts_the_share_within_distance_one(shape, lost):
    u = torch.linspace(-1, 1, 200_001, dtype=torch.float64)
    assert torch.trapezoid(SHAPES[shape](u, SHARPNESS[shape](lost)), u).item() == pytest.approx(lost, abs=1e-4)
    # In use: at distance 1 from the threshold M stays 1 and D 0.
    node, x = neuron.IFNode(step_mode="m"), torch.zeros(1, 1, dtype=torch.float64)
    with ASSG(shape, vanishing_degree=lost).applied(node):
        expected = SHAPES[shape](torch.tensor([[-1.0]], dtype=torch.float64), SHARPNESS[shape](lost) / (1 + 1e-4))
        torch.testing.assert_close(slopes(node, x), expected)


def test_adaptive_sharpness_forgets_between_blocks_and_at_another_shape():
    rule, node, x = ASSG(), neuron.IFNode(step_mode="m"), noise(2, 3, 5)
    with rule.applied(node):
        first, second = slopes(node, x), slopes(node, x)
        slopes(node, x[:, :2])
        anew = slopes(node, x)
    with rule.applied(node):
        later = slopes(node, x)
    assert not torch.allclose(first, second)
    assert torch.equal(first, anew)
    assert torch.equal(first, later)


def test_adaptive_sharpness_recovers_after_a_pass_that_broke_off():
    rule, node, x = ASSG(decay=1.0), neuron.IFNode(step_mode="m"), noise(2, 3, 5)
    with rule.applied(node):
        expected = slopes(node, x)
        with pytest.raises(RuntimeError):
            node(torch.zeros(2, 3, 5, dtype=torch.float64) + torch.full((1, 1, 4), 0.1))
        torch.testing.assert_close(slopes(node, x), expected)


def test_potential_dependent_against_a_slow_loop():
    node, x = neuron.IFNode(step_mode="m"), noise(3, 4, 2, 5, 1)
    x[..., 1, :, :] = 0.25  # a channel whose first potentials are all alike
    distance = membrane_distance(node, x)
    with PDSG().applied(node):
        slopes(node, noise(3, 4, 2, 5, 1, seed=1))  # another pass leaves nothing behind
        found = slopes(node, x)
    for step in range(3):
        for channel in range(2):
            sigma = statistics.pstdev(distance[: step + 1, :, channel].flatten().tolist()) or 1.0
            for u, slope in zip(distance[step, :, channel].flatten().tolist(), found[step, :, channel].flatten().tolist(), strict=True):
                assert slope == pytest.approx(statistics.NormalDist(sigma / 2, sigma).pdf(u), rel=1e-9)


@pytest.mark.parametrize("delayed", [False, True])
def test_potential_dependent_forgets_the_pass_before(delayed):
    node = LeakyNeuron(reset="subtract", delayed=delayed, strict=True).build()
    node.step_mode = "m"
    x, weights = noise(3, 4, 2), noise(3, 4, 2, seed=1)
    with PDSG().applied(node):
        first = pulled_back(node, x, weights)
        pulled_back(node, 9 * noise(3, 4, 2, seed=2), weights)
        again, smaller = pulled_back(node, x, weights), pulled_back(node, x[:, :1], weights[:, :1])
    with PDSG().applied(node):
        alone = pulled_back(node, x[:, :1], weights[:, :1])
    assert torch.equal(first, again)
    assert torch.equal(smaller, alone)
    assert first.any()


def test_potential_dependent_of_a_delayed_neuron_by_hand():
    # Potentials less the threshold: -1 and -1 at the first step, -0.5 and 0.5 at the second: sigma is that of all four.
    node = LeakyNeuron(reset="subtract", delayed=True).build()
    node.step_mode, sigma = "m", statistics.pstdev([-1, -1, -0.5, 0.5])
    with PDSG().applied(node):
        gradient = pulled_back(node, torch.tensor([[[0.5], [1.5]], [[0.0], [0.0]]]), torch.tensor([[[0.0]], [[1.0]]]))
    expected = [statistics.NormalDist(sigma / 2, sigma).pdf(u) for u in (-0.5, 0.5)]
    torch.testing.assert_close(gradient, torch.tensor([expected, [0.0, 0.0]]).unsqueeze(2))


def test_potential_dependent_where_nothing_spreads():
    x = torch.zeros(1, 1, 1, 1, 1)
    node = neuron.IFNode(step_mode="m")
    with PDSG().applied(node):
        assert slopes(node, x).item() == pytest.approx(statistics.NormalDist(0.5, 1).pdf(-1))


# Rates ---------------------------------------------------------------------------------------------------------------------


def pulled_back(node, x, weights):
    """The gradient of the weighted sum of a neuron's spikes."""
    functional.reset_net(node)
    x = x.clone().requires_grad_()
    return torch.autograd.grad((node(x) * weights).sum(), x)[0]


@pytest.mark.parametrize(
    ("node", "inputs", "expected"),
    [
        # The mean, 1, is inside [0, 2]: slope 1/2 at every step, whatever fired.
        (neuron.IFNode(), [4.0, -2.0, 1.0], 0.5),
        (neuron.IFNode(), [-1.0, 0.5, 0.0], 0.0),
        (neuron.IFNode(), [2.0, 2.0, 2.5], 0.0),
        # 0 is the end of the slow rise (0.2) and the beginning of the fast one: the authors' code adds both.
        (neuron.IFNode(), [0.0, 0.0, 0.0], 0.7),
        # V_th 4: slope 1/8.
        (neuron.IFNode(v_threshold=4.0), [7.0, 7.0, 7.0], 0.125),
        # A quarter leaks away: 0.2 up to 1/4, then (1 - 0.05) / 1.75.
        (neuron.LIFNode(tau=4.0, decay_input=False), [0.125, 0.125, 0.125], 0.2),
        (neuron.LIFNode(tau=4.0, decay_input=False), [0.5, 0.5, 0.5], 19 / 35),
        # A quarter of each input arrives, going up and coming back.
        (neuron.LIFNode(tau=4.0), [6.0, 6.0, 6.0], 19 / 140),
        (neuron.ParametricLIFNode(init_tau=4.0), [6.0, 6.0, 6.0], 19 / 140),
        # V_th 20 and a half leaks away: from 0 to 10 by 0.2 / 20, so by a tenth, and the other nine from there to 40.
        (neuron.LIFNode(tau=2.0, decay_input=False, v_threshold=20.0), [5.0, 5.0, 5.0], 0.01),
        (neuron.LIFNode(tau=2.0, decay_input=False, v_threshold=20.0), [30.0, 30.0, 30.0], 0.03),
    ],
    ids=str,
)
def test_rate_gradient_of_one_neuron_by_hand(node, inputs, expected):
    node.step_mode = "m"
    weights = torch.tensor([[1.0], [2.0], [-3.0]])
    with RGA().applied(node):
        gradient = pulled_back(node, torch.tensor(inputs).unsqueeze(1), weights)
    torch.testing.assert_close(gradient, expected * weights)


@pytest.mark.parametrize("leak", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("threshold", [0.5, 1.0, 2.0])
def test_a_rate_rises_from_zero_to_one(threshold, leak):
    drive = torch.linspace(-1, 5, 600_001, dtype=torch.float64)
    assert torch.trapezoid(rate_slope(drive, threshold, leak), drive).item() == pytest.approx(1, abs=1e-4)


def test_fired_at_least_once_against_a_loop():
    node, x, weights = neuron.IFNode(step_mode="m"), noise(4, 3, 5), noise(4, 3, 5, seed=1)
    fired = node(x)
    assert {0, 1, 2} <= set(fired.sum(0).flatten().int().tolist())
    with BPTR().applied(node):
        gradient = pulled_back(node, x, weights)
    for n in range(3):
        for c in range(5):
            assert torch.equal(gradient[:, n, c], weights[:, n, c] * (1.0 if fired[:, n, c].any() else 0.0))


@pytest.mark.parametrize("detached", [False, True])
@pytest.mark.parametrize("reset", [0.0, None])
def test_time_mean_gradient_against_its_formula(reset, detached):
    node = neuron.IFNode(v_reset=reset, detach_reset=detached, surrogate_function=surrogate.ATan(alpha=2.0), step_mode="m")
    x, weights = noise(4, 3, 5), noise(4, 3, 5, seed=1)
    u = membrane_distance(node, x)
    with HART().applied(node):
        gradient = pulled_back(node, x, weights)
    expected = (weights / (1 + (math.pi * u) ** 2)).mean(0, keepdim=True).expand_as(x)
    torch.testing.assert_close(gradient, expected)
    with SurrogateShape("gaussian", 1.0).applied(node), HART().applied(node):
        gradient = pulled_back(node, x, weights)
    expected = (weights * torch.exp(-(u**2) / 2) / math.sqrt(2 * math.pi)).mean(0, keepdim=True).expand_as(x)
    torch.testing.assert_close(gradient, expected)


# Pooling -------------------------------------------------------------------------------------------------------------------

E_TWO = math.exp(2)


@pytest.mark.parametrize("share", ["ties", "softmax", "uniform"])
@pytest.mark.parametrize(
    ("window", "ties"),
    [
        ([0, 0, 0, 0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1, 1]),
        ([0, 0, 0, 0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 9, 0, 0, 0]),
        ([0, 1, 0, 1, 0, 0, 0, 0, 1], [0, 3, 0, 3, 0, 0, 0, 0, 3]),
        ([1, 1, 1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1, 1, 1]),
    ],
)
def test_one_window_of_nine_by_hand(share, window, ties):
    x = torch.tensor(window, dtype=torch.float32).view(1, 3, 3).requires_grad_()
    pool = nn.MaxPool2d(3)
    with PoolGradient(share, temperature=0.5).applied(pool):
        (gradient,) = torch.autograd.grad(9 * pool(x).sum(), x)
    powers = [E_TWO if spike else 1.0 for spike in window]  # exp(1 / 0.5)
    expected = {"ties": ties, "uniform": [1.0] * 9, "softmax": [9 * power / sum(powers) for power in powers]}[share]
    torch.testing.assert_close(gradient.flatten(), torch.tensor(expected, dtype=torch.float32))


@pytest.mark.parametrize(("share", "corner"), [("ties", 1.0), ("softmax", 1.0), ("uniform", 4 / 9)])
def test_padding_takes_part_in_uniform_shares_alone(share, corner):
    # Four zeros in the corner of a padded map: one window sees them, and five positions of padding.
    x = torch.zeros(1, 2, 2, requires_grad=True)
    pool = nn.MaxPool2d(3, stride=2, padding=1)
    with PoolGradient(share).applied(pool):
        (gradient,) = torch.autograd.grad(pool(x).sum(), x)
    assert gradient.sum().item() == pytest.approx(corner)


def pooled_gradient(pool, x, weights, rule=None):
    x = x.clone().requires_grad_()
    with rule.applied(pool) if rule else ExitStack():
        return torch.autograd.grad((pool(x) * weights).sum(), x)[0]


@pytest.fixture
def maps():
    x = (noise(4, 2, 3, 9, 8) > 1).double()
    return x, noise(4, 2, 3, 5, 4, seed=1)


def test_soft_shares_against_window_by_window(maps):
    x, weights = maps
    expected = torch.zeros_like(x)
    for row in range(5):
        for column in range(4):
            rows, columns = slice(max(2 * row - 1, 0), 2 * row + 2), slice(max(2 * column - 1, 0), 2 * column + 2)
            powers = (x[..., rows, columns] / 0.25).exp()
            expected[..., rows, columns] += powers / powers.sum((-2, -1), keepdim=True) * weights[..., row, column, None, None]
    pool = layer.MaxPool2d(3, 2, 1, step_mode="m")
    torch.testing.assert_close(pooled_gradient(pool, x, weights, PoolGradient("softmax", 0.25)), expected)


@pytest.mark.parametrize("kind", [layer.MaxPool2d, layer.AvgPool2d])
def test_the_two_poolings_own_derivatives_are_shares_to_the_bit(maps, kind):
    x, weights = maps
    pool = kind(3, 2, 1, step_mode="m")
    for share, owner in (("first", layer.MaxPool2d), ("uniform", layer.AvgPool2d), ("own", kind)):
        own = pooled_gradient(owner(3, 2, 1, step_mode="m"), x, weights)
        assert torch.equal(pooled_gradient(pool, x, weights, PoolGradient(share)), own)


@pytest.mark.parametrize("share", ["ties", "softmax", "random"])
def test_a_share_is_the_same_whatever_the_pooling_forward(maps, share):
    x, weights = maps
    one, other = (kind(3, 2, 1, step_mode="m") for kind in (layer.MaxPool2d, layer.AvgPool2d))
    rule = PoolGradient(share)
    assert torch.equal(pooled_gradient(one, x, weights, rule), pooled_gradient(other, x, weights, rule))


def test_random_winners_are_maxima_drawn_once_for_channel_and_window():
    # Stride and kernel equal: every position belongs to one window.
    x = (noise(4, 5, 3, 6, 6) > 0).double()
    pool, weights = layer.MaxPool2d(2, step_mode="m"), torch.ones(())
    drawn = pooled_gradient(pool, x, weights, PoolGradient("random"))
    windows = drawn.unfold(-2, 2, 2).unfold(-2, 2, 2).flatten(-2)
    assert torch.equal(windows.sort(-1).values, torch.tensor([0.0, 0, 0, 1]).double().expand_as(windows))
    assert (x.unfold(-2, 2, 2).unfold(-2, 2, 2).flatten(-2) * windows).sum(-1).equal(pool(x)), "a winner is a maximum"
    empty = pooled_gradient(pool, torch.zeros_like(x), weights, PoolGradient("random"))
    assert torch.equal(empty, empty[:1, :1].expand_as(empty)), "the same for every time step and image"
    assert not torch.equal(empty[..., 0, :, :], empty[..., 1, :, :]), "each channel has its own"
    assert torch.equal(pooled_gradient(pool, x[:, :2], weights, PoolGradient("random")), drawn[:, :2]), "whatever the batch"
    assert not torch.equal(pooled_gradient(pool, x, weights, PoolGradient("random", seed=1)), drawn)
    assert not torch.equal(drawn, pooled_gradient(pool, x, weights))


def test_padding_never_wins_a_draw():
    x = torch.zeros(1, 4, 4, requires_grad=True)
    pool = nn.AvgPool2d(3, stride=2, padding=1)
    for seed in range(20):
        with PoolGradient("random", seed=seed).applied(pool):
            assert torch.autograd.grad(pool(x).sum(), x)[0].sum() == 4


def test_average_pooling_can_be_as_sparse_as_max_pooling():
    torch.manual_seed(0)
    x = spikes(2)
    target = target_of(TinyNetwork(pool="avg"), x)

    def zeros(rule):
        with rule.applied(target.network), record_gradients(target.network, ["pool"]) as record:
            input_gradient(lambda batch: target.network(batch.transpose(0, 1)), x, torch.tensor([0, 1]))
        return record.values["network.maxpool"][0].mean().item()

    assert zeros(PoolGradient("own")) == zeros(PoolGradient("uniform")) == 0
    # 3x3 windows, stride 2, on 16x16: 64 winners at most, of 256 positions.
    assert zeros(PoolGradient("first")) >= 0.75
    assert zeros(PoolGradient("random")) >= 0.75
    assert 0 < zeros(PoolGradient("ties")) < 0.75


@pytest.mark.parametrize("pool", ["max", "avg"])
@pytest.mark.parametrize("share", ["first", "random", "ties", "uniform"])
def test_training_under_a_rule_moves_no_logit_and_only_the_gradient_before_the_pool(pool, share):
    def step(rule):
        torch.manual_seed(0)
        module = SpikingClassifier(TinyNetwork(pool=pool), backward=rule).train()
        module.log = lambda *_, **__: None
        loss = module.training_step(SpikeBatch(x.transpose(0, 1), torch.tensor([0, 1]), torch.zeros(0)), 0)
        loss.backward()
        own = target_of(module.network, x)
        return loss, module.network.conv1.weight.grad, module.network.conv2.weight.grad, own

    x = spikes(2)
    plain, ruled = step(None), step(PoolGradient(share))
    assert torch.equal(plain[0], ruled[0]), "the same logits"
    assert torch.equal(plain[2], ruled[2]), "behind the pool nothing changes"
    same = share == {"max": "first", "avg": "uniform"}[pool]
    assert torch.equal(plain[1], ruled[1]) == same
    assert torch.equal(
        input_gradient(plain[3].logits, x, torch.tensor([0, 1]))[0], input_gradient(ruled[3].logits, x, torch.tensor([0, 1]))[0]
    ), "attacks see the network's own derivative"


def test_a_rule_that_training_cannot_follow_is_refused_at_once():
    network = TinyNetwork()
    network.maxpool = layer.MaxPool2d((2, 3))
    with pytest.raises(InputError, match="not square"):
        SpikingClassifier(network, backward=PoolGradient())


def test_uniform_shares_are_those_of_average_pooling(maps):
    x, weights = maps
    pool, average = layer.MaxPool2d(3, 2, 1, step_mode="m"), layer.AvgPool2d(3, 2, 1, step_mode="m")
    torch.testing.assert_close(pooled_gradient(pool, x, weights, PoolGradient("uniform")), pooled_gradient(average, x, weights))


def test_cold_soft_shares_are_ties_and_without_ties_pytorchs_own(maps):
    x, weights = maps
    pool = layer.MaxPool2d(3, 2, 1, step_mode="m")
    torch.testing.assert_close(
        pooled_gradient(pool, x, weights, PoolGradient("softmax", 1e-3)), pooled_gradient(pool, x, weights, PoolGradient("ties"))
    )
    apart = noise(4, 2, 3, 9, 8, seed=2)
    torch.testing.assert_close(pooled_gradient(pool, apart, weights, PoolGradient("ties")), pooled_gradient(pool, apart, weights))


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d((2, 3)),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.MaxPool2d(2, return_indices=True),
        nn.AvgPool2d((2, 3)),
        nn.AvgPool2d(2, ceil_mode=True),
    ],
    ids=repr,
)
def test_windows_a_share_cannot_handle_are_refused(pool):
    with pytest.raises(InputError), PoolGradient().applied(pool):
        pass


def test_sharing_ties_fills_in_zeros_at_the_pools_input():
    torch.manual_seed(0)
    x = spikes(2)
    target = target_of(TinyNetwork(), x)

    def zeros():
        with record_gradients(target.network, ["pool"]) as record:
            input_gradient(lambda batch: target.network(batch.transpose(0, 1)), x, torch.tensor([0, 1]))
        return record.values["network.maxpool"][0].mean().item()

    plain = zeros()
    with PoolGradient("ties").applied(target.network):
        assert zeros() < plain - 0.1


# Attacks under a rule ------------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny_target():
    torch.manual_seed(0)
    return target_of(TinyNetwork(), spikes(4))


def test_an_attack_under_a_rule_follows_its_gradient(tiny_target):
    x, labels = spikes(4), torch.tensor([0, 1, 2, 3])
    rule = PoolGradient("uniform")
    with rule.applied(tiny_target.network):
        gradient, _ = input_gradient(tiny_target.logits, x, labels)
    attacked = BPDA(FGSM(), rule, eps=0.05)(tiny_target, x, labels)
    assert torch.equal(attacked, (x + 0.05 * gradient.sign()).clamp(0, 1))
    assert not torch.equal(attacked, FGSM(eps=0.05)(tiny_target, x, labels))


UNDER = {
    "one": BPDA,
    "draws outside": lambda host, rule: EOT(BPDA(host, rule), draws=4),
    "draws inside": lambda host, rule: BPDA(EOT(host, draws=4), rule),
    "mixture": lambda host, rule: MDSE(host, (rule,)),
    "mixture, draws outside": lambda host, rule: EOT(MDSE(host, (rule,)), draws=4),
    "mixture, draws inside": lambda host, rule: MDSE(EOT(host, draws=4), (rule,)),
}


@each_rule
def test_draws_of_a_network_without_randomness_and_mixtures_of_one_rule_change_nothing(tiny_target, rule):
    x, labels, host = spikes(4), torch.tensor([0, 1, 2, 3]), PGD(steps=4, random_start=False, keep="last")
    found = {name: under(host, rule)(tiny_target, x, labels) for name, under in UNDER.items()}
    assert not torch.equal(found["one"], host(tiny_target, x, labels))
    assert [name for name in UNDER if not torch.equal(found[name], found["one"])] == []


def test_draws_do_not_hold_the_weights_of_a_mixture(tiny_target):
    x, labels = spikes(4), torch.tensor([0, 1, 2, 3])
    seen = []
    for draws in (1, 4):
        weights = Weights(rate=2.0)
        drawn = Drawn(Mixed(tiny_target, tuple(rule.lasting() for rule in (SurrogateShape("rect", 0.5), ASSG())), weights), draws)
        for moved in (0, 0.05, -0.05):
            input_gradient(drawn.logits, (x + moved).clamp(0, 1), labels)
        drawn.logits(x.requires_grad_())
        seen.append(torch.stack(weights.now))
    torch.testing.assert_close(*seen)
    assert not torch.allclose(seen[0][0], seen[0][1])


def test_the_ball_of_the_wrapper_is_that_of_the_attack():
    attack = BPDA(PGD(eps=0.5, steps=3), RGA())
    assert attack.eps == attack.attack.eps == 8 / 255
    assert BPDA(attack, PoolGradient(), eps=0.1).attack.attack.eps == 0.1
    assert attack.passes == PGD(steps=3).passes
    assert "eps=0.1" in repr(BPDA(attack, PoolGradient(), eps=0.1))
    with pytest.raises(InputError, match="eps"):
        BPDA(PGD(), PoolGradient(), eps=-1)


def test_an_attack_under_a_rule_draws_from_the_generator_given_and_puts_back(tiny_target):
    x, labels = spikes(4), torch.tensor([0, 1, 2, 3])
    attack = BPDA(BPDA(PGD(steps=2), ASSG()), PoolGradient())
    before = pieces(tiny_target.network)
    first, second, other = (attack(tiny_target, x, labels, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    with pytest.raises(ValueError, match="batch_size"):
        attack(tiny_target, x, labels[:1])
    assert pieces(tiny_target.network) == before

"""The defence authors' own numbers, in float64, where their files lie beside the checkout."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from snn_sparsity.attacks import FGSM, PGD
from snn_sparsity.gradient_rules import BPTR, RGA, SurrogateShape
from snn_sparsity.measure.operations import operations
from snn_sparsity.networks import LeakyNeuron
from snn_sparsity.networks.leaky import LeakyNode, SlopedStep
from snn_sparsity.networks.rate_twin import ClippedRate
from tests.defences import GOLDEN, HIRE, SHARMIN, Case, assert_close, classifier_of, our_name, shown

pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the golden files are not beside this checkout")
RAT = ["rat_vgg11_narrow", "rat_wrn16_2"]
FULL = [pytest.param(name, marks=pytest.mark.long) for name in ("rat_vgg11", "rat_wrn16_4")]
STRICT = LeakyNeuron(strict=True)


def gradient_of(classifier, x, labels, steps, loss=F.cross_entropy):
    """Logits, loss and the gradient with respect to the image."""
    x = x.clone().requires_grad_()
    logits = classifier(shown(x, steps))
    value = loss(logits, labels)
    return logits, value, torch.autograd.grad(value, x)[0]


def image_target(classifier, steps):
    return SimpleNamespace(space="image", bounds=(0.0, 1.0), network=classifier, logits=lambda x: classifier(shown(x, steps)))


def run_neuron(recipe, rule=None):
    case = Case("neurons")
    node, current = recipe.build(), case["current"].requires_grad_()
    node.step_mode = "m"
    if rule is None:
        spikes = node(current)
        (gradient,) = torch.autograd.grad((spikes * case["upstream"]).sum(), current)
    else:
        with rule.applied(node):
            spikes = node(current)
            (gradient,) = torch.autograd.grad((spikes * case["upstream"]).sum(), current)
    return spikes, gradient


@pytest.mark.parametrize(
    ("tag", "recipe", "rule"),
    [
        ("rat_bptt", LeakyNeuron(), None),
        ("rat_bptt_tau09", LeakyNeuron(leak=0.9), None),
        ("rat_bptt_gamma05", LeakyNeuron(width=0.5), None),
        ("rat_rate", STRICT, BPTR()),
        ("sr_triangle", LeakyNeuron(), None),
        ("sr_sigmoid4", LeakyNeuron(surrogate="sigmoid", width=0.25), None),
        ("sr_sigmoid4", LeakyNeuron(), SurrogateShape("sigmoid", 4.0)),
        ("sr_arctan2", LeakyNeuron(surrogate="atan", width=0.5), None),
        ("sr_arctan2", LeakyNeuron(), SurrogateShape("atan", 2.0)),
        ("sr_rate", STRICT, RGA()),
        ("sr_rate_tau09", LeakyNeuron(leak=0.9, strict=True), RGA()),
    ],
)
def test_neurons_and_their_ties(tag, recipe, rule):
    case = Case("neurons")
    spikes, gradient = run_neuron(recipe, rule)
    assert torch.equal(spikes, case[f"{tag}_spikes"].double())
    assert_close(gradient, case[f"{tag}_grad"], tag)


def test_sr_s_quantised_activation():
    case = Case("neurons")
    current = case["current"].requires_grad_()
    rate = ClippedRate(1.0, levels=8)(current)
    assert_close(rate, case["sr_quantised_relu"])
    assert_close(torch.autograd.grad((rate * case["upstream"]).sum(), current)[0], case["sr_quantised_relu_grad"])


@pytest.mark.parametrize(("tag", "recipe"), [("hire", HIRE), ("sharmin", SHARMIN)])
def test_surrogates(tag, recipe):
    case = Case("neurons")
    z = case[f"{tag}_z"].requires_grad_()
    node = recipe.build()
    assert isinstance(node, LeakyNode)
    spikes = node._fire(z + 1)
    assert torch.equal(spikes, case[f"{tag}_spike"])
    assert_close(torch.autograd.grad(spikes.sum(), z)[0], case[f"{tag}_slope"])
    assert isinstance(node.surrogate_function, SlopedStep)


@pytest.mark.parametrize("name", [*RAT, *FULL])
def test_rat_evaluated(name):
    case = Case(name)
    classifier, steps, labels = classifier_of(case), case.meta["T"], case["labels"]
    rates = []
    for operation in operations(classifier.network, ["neuron"]):
        operation.module.register_forward_hook(lambda module, inputs, spikes: rates.append(spikes.mean().item()))
    logits, loss, gradient = gradient_of(classifier, case.x, labels, steps)
    assert_close(logits, case["eval_logits"], "logits")
    assert_close(loss, case["eval_loss"], "loss")
    assert_close(gradient, case["eval_input_grad"], "gradient")
    assert rates == pytest.approx(case["firing_rates"].tolist(), abs=1e-9)


@pytest.mark.parametrize("name", [*RAT, *FULL])
def test_rat_seen_through_rates(name):
    case = Case(name)
    classifier = classifier_of(case, neuron=STRICT)
    with BPTR().applied(classifier.network):
        logits, loss, gradient = gradient_of(classifier, case.x, case["labels"], case.meta["T"])
        if "fgsm_bptr" in case:
            attacked = FGSM(eps=8 / 255)(image_target(classifier, case.meta["T"]), case.x, case["labels"])
            assert_close(attacked, case["fgsm_bptr"], "fgsm")
    assert_close(logits, case["bptr_logits"], "logits")
    assert_close(loss, case["bptr_loss"], "loss")
    assert_close(gradient, case["bptr_input_grad"], "gradient")


@pytest.mark.parametrize("name", [*RAT, *FULL])
def test_the_twin_that_does_not_spike(name):
    case = Case(name)
    logits, loss, gradient = gradient_of(classifier_of(case, spiking=False), case.x, case["labels"], case.meta["T"])
    assert_close(logits, case["relu_logits"], "logits")
    assert_close(loss, case["relu_loss"], "loss")
    assert_close(gradient, case["relu_input_grad"], "gradient")


@pytest.mark.parametrize("name", RAT)
def test_rat_attacked(name):
    case = Case(name)
    classifier, labels = classifier_of(case), case["labels"]
    target = image_target(classifier, case.meta["T"])
    assert_close(FGSM(eps=8 / 255)(target, case.x, labels), case["fgsm"])
    if "pgd" in case:
        attack = PGD(eps=8 / 255, alpha=2.55 / 255, steps=7)
        attacked = attack.ascend(target, case.x, labels, case["pgd_start"])
        assert_close(attacked, case["pgd"])
        assert_close(target.logits(attacked), case["pgd_logits"])


@pytest.mark.parametrize("name", [*RAT, *FULL])
def test_rat_in_training_mode(name):
    case = Case(name)
    classifier = classifier_of(case).train()
    logits = classifier(shown(case.x, case.meta["T"]))
    loss = F.cross_entropy(logits, case["labels"])
    loss.backward()
    assert_close(logits, case["train_logits"])
    assert_close(loss, case["train_loss"])
    assert_gradients(classifier.network, case["train_grad_norms"], case.part("train_grad"))
    for statistic, expected in case.part("train_stat").items():
        assert_close(classifier.network.state_dict()[statistic], expected, statistic)


def assert_gradients(network, norms, whole):
    """Compare gradients; a bias in front of a BatchNorm has none but rounding."""
    parameters = dict(network.named_parameters())
    biases = {name for name in norms if name.startswith("conv") and name.endswith(".bias")}
    for name, norm in norms.items():
        tolerance = 1e-12 if name in biases else 1e-9 * norm
        assert abs(parameters[name].grad.norm().item() - norm) <= tolerance, name
    for name, gradient in whole.items():
        if name not in biases:
            assert_close(parameters[name].grad, gradient, name)


def test_sr_in_its_four_modes():
    case = Case("sr_vgg11_narrow")
    rules = {
        "triangle": (LeakyNeuron(), None),
        "sigmoid4": (LeakyNeuron(surrogate="sigmoid", width=0.25), None),
        "arctan2": (LeakyNeuron(surrogate="atan", width=0.5), None),
        "rate": (STRICT, RGA()),
    }
    for mode, (neuron, rule) in rules.items():
        classifier = classifier_of(case, neuron=neuron)
        if rule is None:
            logits, _, gradient = gradient_of(classifier, case.x, case["labels"], case.meta["T"])
        else:
            with rule.applied(classifier.network):
                logits, _, gradient = gradient_of(classifier, case.x, case["labels"], case.meta["T"])
        assert_close(logits, case[f"eval_{mode}_logits"], mode)
        assert_close(gradient, case[f"eval_{mode}_input_grad"], mode)


def test_sr_on_spikes():
    case = Case("sr_vgg11_narrow")
    classifier = classifier_of(case, mean=None, std=None)
    spikes = case.bits("poisson_spikes_packed", "poisson_shape").requires_grad_()
    logits = classifier(spikes)
    (gradient,) = torch.autograd.grad(F.cross_entropy(logits, case["labels"]), spikes)
    assert_close(logits, case["poisson_logits"])
    assert_close(gradient.sum(0), case["poisson_input_grad"])


@pytest.mark.parametrize("name", ["hire_vgg5", "hire_vgg11"])
def test_hire(name):
    case = Case(name)
    classifier = classifier_of(case)
    x = case.x.requires_grad_()
    logits = classifier(shown(x, case.meta["T"]))
    loss = F.cross_entropy(logits, case["labels"])
    loss.backward()
    assert_close(logits, case["logits"])
    assert_close(loss, case["loss"])
    assert_close(x.grad, case["input_grad"])
    parameters = dict(classifier.network.named_parameters())
    norms = {our_name(theirs): norm for theirs, norm in case["grad_norms"].items()}
    assert parameters.keys() == norms.keys()
    for ours, norm in norms.items():
        assert parameters[ours].grad.norm().item() == pytest.approx(norm, rel=1e-9, abs=1e-13), ours
    for theirs, gradient in case["threshold_leak_grads"].items():
        assert parameters[our_name(theirs)].grad.item() == pytest.approx(gradient, rel=1e-9, abs=1e-13), theirs


def sharmin(case):
    return classifier_of(case, neuron=SHARMIN, thresholds=case["thresholds"].tolist(), mean=None, std=None, bias=False, batch_norm=False)


def signed(trains, x):
    """The stored trains with the sign of the normalised pixel."""
    return trains * (2 * x - 1).sign()


def test_sharmin():
    case = Case("sharmin_vgg5")
    classifier = sharmin(case)
    spikes = signed(case.bits("train_packed", "train_shape"), case.x).requires_grad_()
    logits = classifier(spikes)
    loss = F.cross_entropy(logits, case["labels"])
    (gradient, *of_parameters) = torch.autograd.grad(loss, [spikes, *classifier.network.parameters()])
    assert_close(logits, case["logits"])
    assert_close(loss, case["loss"])
    assert_close(gradient.sum(0), case["input_grad_normalised"])
    for (name, _), own in zip(classifier.network.named_parameters(), of_parameters, strict=True):
        assert own.norm().item() == pytest.approx(case["param_grad_norms"][name], rel=1e-9), name


def test_sharmin_attacked_with_stored_trains():
    case = Case("sharmin_vgg5")
    classifier, labels = sharmin(case), case["labels"]

    def target(trains):
        left = iter(trains)

        def logits(x):
            # The train of this step, straight through.
            return classifier(signed(next(left), x.detach()) + (2 * x - 2 * x.detach()))

        return SimpleNamespace(space="image", bounds=(0.0, 1.0), logits=logits)

    train = case.bits("train_packed", "train_shape")
    assert_close(FGSM(eps=8 / 255)(target([train]), case.x, labels), case["fgsm"])
    steps = int(case["pgd_steps"])
    trains = case.bits("pgd_trains_packed", (steps, *train.shape))
    attack = PGD(eps=8 / 255, alpha=float(case["pgd_alpha"]), steps=steps)
    assert_close(attack.ascend(target(trains), case.x, labels, case["pgd_start"]), case["pgd"])

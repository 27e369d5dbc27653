"""The defence authors' own numbers, in float64, where their files lie beside the checkout."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from snn_sparsity.attacks import FGSM, PGD
from snn_sparsity.batch import SpikeBatch
from snn_sparsity.encoders import DirectEncoder
from snn_sparsity.gradient_rules import BPTR, RGA, SurrogateShape
from snn_sparsity.measure.operations import operations
from snn_sparsity.networks import LeakyNeuron
from snn_sparsity.networks.constraints import retract, simplex_projection
from snn_sparsity.networks.leaky import LeakyNode, SlopedStep
from snn_sparsity.networks.rate_twin import ClippedRate
from snn_sparsity.objectives import AdversarialTraining, SparseGradient, TrainingStep
from snn_sparsity.training import OrthogonalRetraction, SimplexProjection
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
    classifier = classifier_of(case, neurons=STRICT)
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
        classifier = classifier_of(case, neurons=neuron)
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
    return classifier_of(case, neurons=SHARMIN, thresholds=case["thresholds"].tolist(), mean=None, std=None, bias=False, batch_norm=False)


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


def training_state(classifier, images, labels, steps):
    images = images.clone()
    spikes = shown(images.double() / 255, steps)
    return TrainingStep(classifier, SpikeBatch(spikes, labels, images), DirectEncoder(steps))


def test_retraction():
    case = Case("retraction")
    rows = case.part("rows")
    assert {"linear_200", "linear_250", "linear_210_wide"} == rows.keys()
    for name, before in case.part("before").items():
        weight = before.clone()
        for call in range(10):
            retract(weight, float(case["beta"]), rows[name][call] if name in rows else None)
            if call == 0:
                assert_close(weight, case[f"after1/{name}"], name)
        assert_close(weight, case[f"after10/{name}"], name)


def test_simplex():
    for vector, projection in Case("retraction").part("simplex").values():
        assert_close(simplex_projection(vector), projection)


def given_rows(classifier, case, number):
    """The callback that draws the authors' rows."""
    names = [name for name, module in classifier.network.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    given = case.part(f"step{number}_rows")
    callback = OrthogonalRetraction(beta=0.004)
    callback.rows = lambda module, key: given.get(f"{names[key[-1]]}.weight")
    return callback


@pytest.mark.parametrize("name", ["rat_vgg11_narrow", *FULL])
def test_rat_s_whole_training_steps(name):
    case = Case(name)
    classifier = classifier_of(case).train()
    state, parameters = classifier.network.state_dict(), dict(classifier.network.named_parameters())
    optimizer = torch.optim.SGD(classifier.parameters(), lr=0.1, momentum=0.9)
    objective, seen, norms = AdversarialTraining([FGSM(eps=2 / 255)]), [], {}
    classifier.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    optimizer.register_step_post_hook(lambda *_: norms.update({key: value.norm().item() for key, value in parameters.items()}))
    steps = 2 if "step2_loss" in case else 1
    for number, images in enumerate(case["images"].chunk(steps), start=1):
        constraints = [given_rows(classifier, case, number)]
        if "fc.weight" in state:
            constraints.append(SimplexProjection())
        trainer = SimpleNamespace(optimizers=[optimizer], datamodule=None, global_step=number)
        for constraint in constraints:
            constraint.on_train_start(trainer, classifier)
        labels = case[f"step{number}_labels"]
        loss, logged = objective(training_state(classifier, images, labels, case.meta["T"]))
        assert_close(seen[-1][0], case[f"step{number}_adv"], "adversarial images")
        assert_close(loss, case[f"step{number}_loss"])
        assert 0 <= logged["accuracy"] <= 1
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for constraint in constraints:
            constraint.teardown(trainer, classifier, "fit")
        for key, norm in case[f"step{number}_norms_before_retraction"].items():
            assert norms[key] == pytest.approx(norm, rel=1e-9), key
        for key, norm in case[f"step{number}_norms"].items():
            assert state[key].norm().item() == pytest.approx(norm, rel=1e-9), key
            # A sum of thousands of numbers that nearly cancel is as exact as they are.
            rounding = 1e-9 * norm * state[key].numel() ** 0.5
            assert state[key].sum().item() == pytest.approx(case[f"step{number}_sums"][key], abs=rounding), key
        for key, value in case.part(f"step{number}_state").items():
            assert_close(state[key], value, key)


def test_sr_s_penalty():
    case = Case("sr_vgg11_narrow")
    classifier, seen, logits = classifier_of(case).train(), [], []
    classifier.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    classifier.network.register_forward_hook(lambda module, inputs, outputs: logits.append(outputs.mean(0)))
    loss, logged = SparseGradient(weight=1.0)(training_state(classifier, case["images"], case["labels"], case.meta["T"]))
    penalty = loss - F.cross_entropy(logits[0], case["labels"])
    assert_close(seen[1][0], case["second_input"])
    assert_close(logits[0], case["first_logits"])
    assert_close(logits[1], case["second_logits"])
    assert_close(penalty, case["penalty"])
    assert_close(logged["penalty"], case["penalty"])
    penalty.backward()
    assert_gradients(classifier.network, case["penalty_grad_norms"], case.part("penalty_grad"))
    for statistic, expected in case.part("stat_after").items():
        assert_close(classifier.network.state_dict()[statistic], expected, statistic)


def test_sr_s_whole_training_step():
    case = Case("sr_vgg11_narrow")
    classifier = classifier_of(case).train()
    optimizer = torch.optim.SGD(classifier.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    objective = SparseGradient(weight=float(case["step_lambda"]))
    loss, logged = objective(training_state(classifier, case["images"], case["labels"], case.meta["T"]))
    assert_close(loss, case["step_ce"] + case["step_lambda"] * case["step_penalty"])
    assert_close(logged["penalty"], case["step_penalty"])
    loss.backward()
    optimizer.step()
    state = classifier.network.state_dict()
    for key, norm in case["step_norms"].items():
        assert state[key].norm().item() == pytest.approx(norm, rel=1e-9), key
        assert state[key].sum().item() == pytest.approx(case["step_sums"][key], abs=1e-9 * norm * state[key].numel() ** 0.5), key


def test_sr_after_an_attack():
    case = Case("sr_vgg11_narrow")
    classifier, seen = classifier_of(case).train(), []
    classifier.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    objective = SparseGradient(weight=float(case["step_lambda"]), attack=FGSM(eps=8 / 255))
    loss, logged = objective(training_state(classifier, case["images"], case["labels"], case.meta["T"]))
    # The file's README calls it the second input; it is the first, the attacked image (both passes' inputs follow from it).
    assert_close(seen[-2][0], case["at_images"])
    assert_close(logged["penalty"], case["at_penalty"])
    assert_close(loss - case["step_lambda"] * case["at_penalty"], case["at_ce"])
    loss.backward()
    assert_gradients(classifier.network, case["at_grad_norms"], {})

"""What holds for every probe, attack, encoder and network, found by walking the package: new ones join unasked."""

import dataclasses
import importlib
import inspect
import itertools
import pkgutil
import random
import typing

import numpy as np
import pytest
import torch
from lightning import Callback, Trainer
from torch import nn

import snn_sparsity
from snn_sparsity.attacks import PGD, Attack, HopSkipJump, RandomFlips, RayS, Square, Swap, Transfer
from snn_sparsity.attacks.base import correct
from snn_sparsity.attacks.flips import FlipAttack
from snn_sparsity.attacks.metering import Meter, Metered
from snn_sparsity.attacks.targets import ImageTarget, SpikeTarget
from snn_sparsity.batch import SpikeBatch
from snn_sparsity.classifier import SpikingClassifier
from snn_sparsity.encoders import DirectEncoder, Encoder, PhaseEncoder
from snn_sparsity.gradient_rules import GradientRule, PoolGradient
from snn_sparsity.measure import names
from snn_sparsity.networks import IFNeuron
from snn_sparsity.objectives import Objective, TrainingStep
from snn_sparsity.probes import PassProbe, Probe
from tests.tiny import TinyDataModule, TinyNetwork


def classes_of(base):
    """Every concrete subclass of ``base`` that the package defines."""
    for info in pkgutil.walk_packages(snn_sparsity.__path__, "snn_sparsity."):
        if not info.name.endswith("__main__"):
            importlib.import_module(info.name)
    found, left = set(), [base]
    while left:
        for child in left.pop().__subclasses__():
            left.append(child)
            if child.__module__.startswith("snn_sparsity.") and not inspect.isabstract(child):
                found.add(child)
    return sorted(found, key=lambda child: child.__name__)


def make(kind, **given):
    """An object with its defaults; what has none is filled in by its type."""
    hints = typing.get_type_hints(kind.__init__)
    needed = [
        name
        for name, parameter in inspect.signature(kind).parameters.items()
        if parameter.default is inspect.Parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
    ]
    fillers = {Attack: PGD(steps=2), Encoder: PhaseEncoder(), GradientRule: PoolGradient()}
    short = {name: 3 for name in ("steps", "queries", "draws") if issubclass(kind, Attack) and name in inspect.signature(kind).parameters}
    return kind(**{name: fillers[hints[name]] for name in needed} | short | given)


NETWORKS = [
    kind for _, kind in inspect.getmembers(importlib.import_module("snn_sparsity.networks"), inspect.isclass) if issubclass(kind, nn.Module)
]
# A transferred attack is made on a target, a swap of images, not from settings: tests/test_image_attacks.py.
PROBES, ATTACKS, ENCODERS, OBJECTIVES = (
    classes_of(Probe),
    [kind for kind in classes_of(Attack) if kind not in (Transfer, Swap)],
    [kind for kind in classes_of(Encoder) if kind.__name__ != "PixelCode"],
    classes_of(Objective),
)


def test_the_walk_finds_the_known_ones():
    found = {kind.__name__ for kind in PROBES + ATTACKS + ENCODERS + NETWORKS}
    assert found >= {"AdversarialAccuracy", "GradientSparsity", "FGSM", "PGD", "CodeBookAscent", "PhaseEncoder", "RateEncoder", "SEWResNet"}
    assert len(OBJECTIVES) >= 5


class State:
    """Everything that measuring must leave as it was."""

    def __init__(self, module):
        self.tensors = {name: value.clone() for name, value in module.state_dict().items()}
        self.gradients = {name: None if p.grad is None else p.grad.clone() for name, p in module.named_parameters()}
        self.required = {name: p.requires_grad for name, p in module.named_parameters()}
        self.training = {name: child.training for name, child in module.named_modules()}
        self.hooks = {name: (len(child._forward_pre_hooks), len(child._forward_hooks), len(child._backward_hooks))
                      for name, child in module.named_modules()}  # fmt: skip
        self.random = torch.get_rng_state()
        _, keys, *place = np.random.get_state()
        self.other_random = random.getstate(), keys.tolist(), place

    def assert_equal(self, module):
        now = State(module)
        assert now.tensors.keys() == self.tensors.keys()
        for name, value in now.tensors.items():
            assert torch.equal(value, self.tensors[name]), name
        for name, value in now.gradients.items():
            before = self.gradients[name]
            assert (value is None and before is None) or torch.equal(value, before), name
        assert (now.required, now.training, now.hooks) == (self.required, self.training, self.hooks)
        assert torch.equal(now.random, self.random)
        assert now.other_random == self.other_random


def used_classifier():
    """A classifier in training mode with gradients left over from its last step."""
    torch.manual_seed(0)
    classifier = SpikingClassifier(TinyNetwork()).train()
    for _ in range(3):
        classifier(torch.randint(0, 2, (10, 8, 3, 32, 32)).float()).sum().backward()
    return classifier


# Encoders ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ENCODERS, ids=lambda kind: kind.__name__)
def test_encoder(kind):
    encoder = make(kind)
    images = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    before = torch.get_rng_state()
    spikes = encoder(images, torch.Generator().manual_seed(1))
    assert spikes.shape == (encoder.num_steps, 2, 3, 4, 5)
    assert spikes.dtype == torch.float32
    assert -1 <= spikes.min() <= spikes.max() <= 1
    assert torch.equal(spikes, encoder(images, torch.Generator().manual_seed(1)))
    assert torch.equal(spikes, encoder(images / 255, torch.Generator().manual_seed(1)))
    assert torch.equal(before, torch.get_rng_state())
    if encoder.stochastic:
        assert not torch.equal(spikes, encoder(images, torch.Generator().manual_seed(2)))
        assert not hasattr(encoder, "code_book")
        with pytest.raises(ValueError, match="generator"):
            encoder(images)
    else:
        assert encoder.code_book.shape == (256, encoder.num_steps)
        assert torch.equal(spikes, encoder.code_book[images.long()].movedim(-1, 0))
    assert not encoder.state_dict(), "an encoder has no state: checkpoints must not depend on it"


# Networks ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", NETWORKS, ids=lambda kind: kind.__name__)
def test_network(kind):
    network = make(kind, num_classes=7)
    classifier, spikes = SpikingClassifier(network), torch.randint(0, 2, (4, 2, 3, 32, 32)).float()
    # Statistics of this batch: with those of a new BatchNorm deep layers are silent, and narrow surrogates see nothing.
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    classifier(spikes)
    classifier.eval()
    assert network(spikes).shape == (4, 2, 7)
    first = classifier(spikes)
    classifier(1 - spikes)
    assert torch.equal(first, classifier(spikes)), "the classifier's forward must be a pure function"
    x = spikes.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(classifier(x)[:, 0].sum(), x)
    assert gradient.abs().sum() > 0, "no gradient in eval mode: nothing could be attacked"


# Attacks -------------------------------------------------------------------------------------------------------------------


def aimed(attack, classifier):
    """A target the attack can use, and clean inputs."""
    images = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    try:
        target = SpikeTarget(classifier)
        x = PhaseEncoder()(images).transpose(0, 1)
        attack(target, x[:1], torch.tensor([0]))
    except ValueError:
        target, x = ImageTarget(classifier, PhaseEncoder()), images / 255
    return target, x


@pytest.mark.parametrize("kind", ATTACKS, ids=lambda kind: kind.__name__)
def test_attack(kind):
    classifier = used_classifier()
    attack = make(kind)
    target, x = aimed(attack, classifier)
    labels = torch.arange(6) % 4
    before, original = State(classifier), x.clone()
    attacked = attack(target, x, labels, torch.Generator().manual_seed(3))
    before.assert_equal(classifier)
    assert torch.equal(x, original)
    assert attacked.shape == x.shape
    assert (attacked - x).abs().max() <= attack.eps + 1e-6
    assert 0 <= attacked.min() <= attacked.max() <= 1
    assert torch.equal(attacked, attack(target, x, labels, torch.Generator().manual_seed(3)))
    assert torch.equal(dataclasses.replace(attack, eps=0.0)(target, x, labels), x)
    with pytest.raises(dataclasses.FrozenInstanceError):
        attack.eps = 1.0
    assert f"eps={attack.eps}" in repr(attack)


@pytest.mark.parametrize("kind", ATTACKS, ids=lambda kind: kind.__name__)
def test_attack_costs_what_it_says(kind):
    attack = make(kind)
    target, x = aimed(attack, used_classifier())
    meter = Meter(torch.arange(6) % 4)
    attack(Metered(target, meter), x, meter.labels, torch.Generator().manual_seed(3))
    allowed = tuple(6 * count for count in attack.passes)
    assert (meter.forwards, meter.backwards) <= allowed
    if kind not in (Square, RayS, HopSkipJump, RandomFlips):  # they drop images already broken
        assert (meter.forwards, meter.backwards) == allowed


@pytest.mark.parametrize("kind", ATTACKS, ids=lambda kind: kind.__name__)
def test_attack_after_an_exception(kind):
    classifier = used_classifier()
    attack = make(kind)
    target, x = aimed(attack, classifier)
    before = State(classifier)
    classifier.network.fc.forward = fail_after(0, classifier.network.fc.forward)
    with pytest.raises(ZeroDivisionError):
        attack(target, x, torch.zeros(6, dtype=torch.int64), torch.Generator())
    before.assert_equal(classifier)


class Breaking:
    """A classifier whose logits are no numbers once the mean input is above a half."""

    bounds, network, code_book = (0.0, 1.0), nn.Sequential(IFNeuron().build()), DirectEncoder(1).code_book

    def __init__(self, space):
        self.space = space

    def logits(self, x):
        mean = x.flatten(1).mean(1, keepdim=True)
        return torch.cat([1 - mean, mean], 1) * torch.where(mean > 0.5, torch.nan, 1.0)

    def smoothed(self, half_width):
        return self

    @property
    def spikes(self):
        return Breaking("spikes")


def patient(kind):
    given = {"steps": 50, "queries": 50, "draws": 50, "attack": PGD(steps=9)}
    return make(kind, **{name: value for name, value in given.items() if name in inspect.signature(kind).parameters})


@pytest.mark.parametrize(
    "attack",
    [*map(patient, ATTACKS), Swap(torch.full((1, 1, 2, 2), 0.6)), Transfer(Breaking("image"), PGD())],
    ids=lambda one: type(one).__name__,
)
def test_attack_keeps_what_breaks_the_network(attack):
    # Label 0 wins up to a mean of 0.5; beyond it, 2.5 grey levels away, no label is right.
    flips = isinstance(attack, FlipAttack)
    target = Breaking("spikes" if flips else "image")
    x = (torch.arange(100) < 49).float().expand(2, -1).view(2, 1, 1, 10, 10) if flips else torch.full((2, 1, 2, 2), 125 / 255)
    labels = torch.zeros(2, dtype=torch.int64)
    attacked = attack(target, x, labels, torch.Generator().manual_seed(3))
    assert correct(target.logits(x), labels).all()
    assert not correct(target.logits(attacked), labels).any()
    assert (attacked - x).abs().max() <= attack.eps + 1e-6


def test_an_iterate_that_broke_the_network_fooled_it():
    meter = Meter(torch.tensor([0, 0]))
    Metered(Breaking("image"), meter).logits(torch.tensor([[0.4], [0.6]]))
    assert meter.fooled.tolist() == [False, True]


# Objectives ----------------------------------------------------------------------------------------------------------------


def losses_of(kind, classifier):
    """What an objective makes of one batch, replays and all."""
    objective = make(kind)
    generator = torch.Generator().manual_seed(2)
    images = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8, generator=generator)
    batch, losses = SpikeBatch(DirectEncoder(4)(images), torch.arange(6) % 4, images), []
    for number in range(objective.replays):
        loss, logged = objective(TrainingStep(classifier, batch, DirectEncoder(4), key=(1, 2), number=number))
        assert all(not value.requires_grad for value in logged.values())
        assert logged.keys() <= set(names.VALUES)
        torch.autograd.grad(loss, list(classifier.parameters()))
        losses.append(loss.detach())
    return objective, torch.stack(losses)


@pytest.mark.parametrize("kind", OBJECTIVES, ids=lambda kind: kind.__name__)
def test_objective_leaves_all_but_running_statistics_and_costs_what_it_says(kind):
    classifier, passes = used_classifier(), {"forwards": 0.0, "backwards": 0.0}

    def count(module, inputs, outputs):
        share = len(inputs[0]) * inputs[0].shape[1] / 24

        def back(gradient):
            passes["backwards"] += share

        passes["forwards"] += share
        if outputs.requires_grad:
            outputs.register_hook(back)

    classifier.network.register_forward_hook(count)
    before = State(classifier)
    objective, losses = losses_of(kind, classifier)
    assert losses.isfinite().all()
    for name in [name for name in before.tensors if "running" in name or "tracked" in name]:
        before.tensors[name] = classifier.state_dict()[name]
    before.assert_equal(classifier)
    assert passes == pytest.approx(objective.passes._asdict())
    with pytest.raises(dataclasses.FrozenInstanceError):
        objective.replays = 7


@pytest.mark.parametrize("kind", OBJECTIVES, ids=lambda kind: kind.__name__)
def test_objective_is_the_same_twice_and_on_plain_kernels(kind):
    fused, again, plain = (used_classifier() for _ in range(3))
    for name in ("sn1", "sn2"):
        node = IFNeuron(kernel="spikingjelly").build()
        node.step_mode = "m"
        setattr(plain.network, name, node)
    losses = [losses_of(kind, classifier)[1] for classifier in (fused, again, plain)]
    assert torch.equal(losses[0], losses[1])
    assert torch.equal(losses[0], losses[2])
    for name, value in fused.state_dict().items():
        assert torch.equal(value, plain.state_dict()[name]), name


# Probes --------------------------------------------------------------------------------------------------------------------


def fail_after(calls, function):
    """The function, until it has been called so often; then ZeroDivisionError."""
    count = iter(range(calls))

    def failing(*args):
        if next(count, None) is None:
            raise ZeroDivisionError
        return function(*args)

    return failing


class Bystander:
    """A mixin for a probe that also does whatever a careless author might do."""

    def measure(self, context, batch):
        values = super().measure(context, batch)
        torch.rand(3)
        random.random()
        np.random.rand(3)
        context.classifier.train()
        context.classifier(batch.spikes).sum().backward()
        context.classifier.requires_grad_(False)
        return values


class Watch(Callback):
    """Compares the classifier before and after each validation batch, probes included, with gradients left over from a step."""

    compared = 0

    def on_validation_batch_start(self, trainer, classifier, batch, batch_idx):
        for parameter in classifier.parameters():
            parameter.grad = torch.full_like(parameter, 0.5)
        self.before = State(classifier)

    def on_validation_batch_end(self, trainer, classifier, outputs, batch, batch_idx):
        self.before.assert_equal(classifier)
        self.compared += 1

    def on_exception(self, trainer, classifier, exception):
        self.before.assert_equal(classifier)
        self.compared += 1


def run(probe, classifier, options, *watch, **trainer):
    data = TinyDataModule(eval_batch_size=8)
    return Trainer(callbacks=[probe, *watch], **options | trainer).validate(classifier, datamodule=data, verbose=False)[0]


@pytest.mark.parametrize("careless", [False, True])
@pytest.mark.parametrize("kind", PROBES, ids=lambda kind: kind.__name__)
def test_probe_leaves_no_trace(kind, careless, trainer_options):
    probe, watch = make(type("Careless", (Bystander, kind), {}) if careless else kind, name="it"), Watch()
    metrics = run(probe, used_classifier(), trainer_options, watch)
    assert watch.compared == 1
    mine = {name for name in metrics if not name.startswith(("val/", "time/"))}
    assert mine, "a probe logs something"
    assert f"time/{probe.name}_seconds" in metrics


@pytest.mark.parametrize("kind", PROBES, ids=lambda kind: kind.__name__)
def test_probe_that_fails_is_named_and_leaves_no_trace(kind, trainer_options):
    classifier, watch = used_classifier(), Watch()
    probe = make(kind, name="it")
    # The validation step itself comes first; then the probe meets a network that breaks.
    classifier.network.fc.forward = fail_after(1, classifier.network.fc.forward)
    with pytest.raises(RuntimeError, match="probe 'it'"):
        run(probe, classifier, trainer_options, watch)
    assert watch.compared == 1


@pytest.mark.parametrize("kind", PROBES, ids=lambda kind: kind.__name__)
def test_probe_measures_the_same_in_any_loop_and_precision(kind, trainer_options):
    classifier = used_classifier()
    expected = run(make(kind, name="it"), classifier, trainer_options)
    for other in ({"inference_mode": False}, {"precision": "bf16-mixed"}):
        measured = run(make(kind, name="it"), classifier, trainer_options, **other)
        for name, value in expected.items():
            if not name.startswith(("val/", "time/")):
                assert measured[name] == pytest.approx(value, rel=1e-6, abs=1e-9, nan_ok=True), (name, other)


def is_named(logged):
    """Whether a logged name is put together of names that ``measure/names.py`` has."""
    first, _, rest = logged.partition("/")
    statistics = {name for each in names.STATISTICS for name in (each, names.mean_of(each))} | {*map(names.reachable, names.TRAIL_WEIGHTS)}
    settings = (names.AT_ADVERSARIAL, names.WITH_BATCH_STATISTICS, names.AT_ADVERSARIAL + names.WITH_BATCH_STATISTICS, "")
    of_operations = any(first.removesuffix(setting) in statistics for setting in settings)
    return of_operations or rest in names.VALUES or logged in (names.TRAIN_LOSS_EPOCH, f"{names.TRAIN_LOSS}_step")


def test_every_logged_name_is_one_of_names(trainer_options):
    probes = [make(kind) for kind in PROBES]
    for kind, mode in itertools.product([kind for kind in PROBES if issubclass(kind, PassProbe)], ("eval", "batch")):
        probes.append(make(kind, at="adversarial", batch_norm=mode, name=f"{kind.__name__}_{mode}"))
    trainer = Trainer(callbacks=probes, **trainer_options | {"max_epochs": 1})
    trainer.fit(SpikingClassifier(TinyNetwork()), datamodule=TinyDataModule())
    times = {names.seconds_of(probe.name) for probe in probes}
    logged = trainer.callback_metrics.keys() | trainer.logged_metrics.keys()
    assert times <= logged
    assert {name for name in logged - times if not is_named(name)} == set()
    assert not is_named("pgd/acuracy")
    assert not is_named("grad_zeros/conv/01_conv1")


@pytest.mark.parametrize("kind", PROBES, ids=lambda kind: kind.__name__)
def test_two_probes_of_a_class_have_states_of_their_own(kind):
    assert make(kind, name="one").state_key != make(kind, name="other").state_key


def test_training_is_bit_identical_with_all_probes_and_without(trainer_options):
    def weights(probes):
        torch.manual_seed(4)
        classifier = SpikingClassifier(TinyNetwork())
        # Validation in the middle of an accumulation is where a stray gradient would show.
        options = {"max_epochs": 2, "accumulate_grad_batches": 2, "val_check_interval": 1}
        trainer = Trainer(callbacks=probes, **trainer_options | options)
        trainer.fit(classifier, datamodule=TinyDataModule())
        losses = {name: value for name, value in trainer.callback_metrics.items() if name.startswith(("train/", "val/"))}
        assert len(losses) > 3
        return classifier.state_dict() | losses

    careless = type("Careless", (Bystander, PROBES[0]), {})
    everything = [make(kind) for kind in PROBES] + [make(careless, name="careless")]
    plain, probed, reordered = weights([]), weights(everything), weights([make(kind) for kind in reversed(PROBES)])
    for name, value in plain.items():
        assert torch.equal(value, probed[name]), name
        assert torch.equal(value, reordered[name]), name

"""Networks as other people write them: step modes, containers, one value per BatchNorm channel, plain LightningModules."""

import copy
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from lightning import LightningModule, Trainer
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from snn_sparsity.attacks import FGSM, PGD
from snn_sparsity.classifier import SpikingClassifier
from snn_sparsity.encoders import DirectEncoder, PhaseEncoder
from snn_sparsity.measure.gradients import record_gradients
from snn_sparsity.networks import IFNeuron
from snn_sparsity.probes import (
    AdversarialAccuracy,
    GradientSparsity,
    GradientTrail,
    Probe,
    SparsityOrigin,
    SurrogateSaturation,
    SynapticOperations,
    VulnerabilityRatio,
)  # fmt: skip
from snn_sparsity.validation import InputError
from tests.tiny import TinyDataModule, TinyNetwork

# Single-step mode -----------------------------------------------------------------------------------------------------------


class Loop(nn.Module):
    """Runs a single-step network step by step, as SpikingJelly's tutorials do."""

    num_classes = 4

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, spikes):
        return torch.stack([self.network(step) for step in spikes])


class Flat(nn.Module):
    """Runs a network on all steps of all images side by side."""

    num_classes = 4

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, spikes):
        return self.network(spikes.flatten(0, 1)).unflatten(0, spikes.shape[:2])


def layers(pool=True):
    kinds = [nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(4)]
    return [*kinds, nn.MaxPool2d(3, 2, 1)] if pool else kinds


def stepwise():
    return nn.Sequential(*layers(), neuron.IFNode(), nn.Flatten(), nn.Linear(4 * 64, 4))


SPIKES = torch.randint(0, 2, (5, 3, 3, 32, 32), generator=torch.Generator().manual_seed(0)).float()


def test_a_network_in_single_step_mode_is_refused_by_name():
    network = TinyNetwork()
    functional.set_step_mode(network, "s")
    with pytest.raises(InputError, match="conv1 .*single-step mode and got 5 time steps"):
        SpikingClassifier(network)(SPIKES)


@pytest.mark.parametrize("name", ["sn1", "sn2"])
def test_one_neuron_in_single_step_mode_is_refused_by_name(name):
    network = TinyNetwork()
    network.get_submodule(name).step_mode = "s"
    with pytest.raises(InputError, match=rf"{name} \(\w*IFNode\) is in single-step mode"):
        SpikingClassifier(network)(SPIKES)
    SpikingClassifier(network)(SPIKES[:1])  # with one step there is nothing to confuse


@pytest.mark.parametrize("stateful", [neuron.IFNode(), neuron.LIFNode(), layer.Dropout(0.5)])
def test_time_as_a_batch_is_refused(stateful):
    network = Flat(nn.Sequential(nn.Flatten(), nn.Linear(3072, 4), stateful))
    with pytest.raises(InputError, match=r"network.2 .* in single-step mode"):
        SpikingClassifier(network)(SPIKES)


def test_step_by_step_is_accepted_and_right():
    torch.manual_seed(0)
    inner = stepwise().eval()
    looped = SpikingClassifier(Loop(inner)).eval()(SPIKES)
    contained = layer.MultiStepContainer(*copy.deepcopy(inner))
    contained.num_classes = 4
    torch.testing.assert_close(SpikingClassifier(contained).eval()(SPIKES), looped)


def test_an_error_of_the_network_s_own_stays_what_it_is():
    network = Loop(stepwise())
    network.network[0].forward = lambda x: 1 / 0
    with pytest.raises(ZeroDivisionError):
        SpikingClassifier(network)(SPIKES)


class Summed(Loop):
    """Takes the mean over time itself."""

    def forward(self, spikes):
        return super().forward(spikes).mean(0)


class Both(Loop):
    """Returns a state beside its outputs."""

    def forward(self, spikes):
        return super().forward(spikes), None


@pytest.mark.parametrize(("kind", "told"), [(Summed, r"\[8, 4\]"), (Both, "tuple")])
def test_outputs_without_time_are_refused_in_one_line(kind, told, trainer_options):
    message = rf"network: {kind.__name__} returned {told} for spikes \[T,N,C,H,W\] = \[10, 8, 3, 32, 32\]: outputs must be \[T,N,K\]"
    trainer = Trainer(**trainer_options)
    with pytest.raises(InputError, match=message):
        trainer.fit(SpikingClassifier(kind(stepwise())), datamodule=TinyDataModule(batch_size=8, eval_batch_size=8, validation="test"))
    assert trainer.global_step == 0


# Time steps and images inside ----------------------------------------------------------------------------------------------


def contained():
    """The same computation as ``multi_step``, its layers in a container that puts time steps and images side by side."""
    network = nn.Sequential(
        layer.SeqToANNContainer(*layers()), IFNeuron().build(), layer.SeqToANNContainer(nn.Flatten(), nn.Linear(256, 4))
    )
    functional.set_step_mode(network, "m")
    network.num_classes = 4
    return network


def multi_step(weights):
    network = nn.Sequential(
        layer.Conv2d(3, 4, 3, stride=2, padding=1, bias=False), layer.BatchNorm2d(4), layer.MaxPool2d(3, 2, 1), IFNeuron().build(),
        layer.Flatten(), nn.Linear(256, 4),
    )  # fmt: skip
    functional.set_step_mode(network, "m")
    network.num_classes = 4
    network.load_state_dict(dict(zip(network.state_dict(), weights.values(), strict=True)))
    return network


PROBES = (GradientSparsity, SparsityOrigin, SurrogateSaturation)


def values(network, options, count, steps, batch=None, kinds=PROBES):
    data = TinyDataModule(eval_batch_size=batch or count, test_images=count, encoder=PhaseEncoder(num_steps=steps))
    metrics = Trainer(callbacks=[kind() for kind in kinds], **options).test(SpikingClassifier(network), datamodule=data, verbose=False)[0]
    # The container adds nothing to the paths but its own level.
    shorter = {re.sub(r"/(\d\d)_[\d.]+$", r"/\1", name): value for name, value in metrics.items()}
    return {name: value for name, value in shorter.items() if not name.startswith(("time/", "test/"))}


@pytest.mark.parametrize(("count", "steps", "batch"), [(6, 4, 6), (4, 4, 4), (7, 3, 4), (1, 5, 1), (5, 1, 2)])
def test_a_container_gives_the_values_of_multi_step_layers(count, steps, batch, trainer_options):
    torch.manual_seed(1)
    network = contained()
    expected = values(multi_step(network.state_dict()), trainer_options, count, steps, batch)
    found = values(network, trainer_options, count, steps, batch)
    assert len(found) > 40
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert value == pytest.approx(expected[name], rel=1e-5, abs=1e-7, nan_ok=True), name


@pytest.mark.parametrize("kind", [*PROBES, GradientTrail])
def test_what_cannot_be_told_apart_is_refused_by_name(kind, trainer_options):
    flat = nn.Sequential(Flat(nn.Sequential(*layers(), nn.Flatten(), nn.Linear(256, 4))), IFNeuron().build())
    functional.set_step_mode(flat, "m")
    looped = Loop(stepwise())
    flat.num_classes = 4
    for network, words in (
        (flat, r"operation '0.network.0' sees \[24, 3, 32, 32\] in a pass of 6 images and 4 time steps"),
        (looped, "ran"),
    ):
        if kind is SurrogateSaturation and network is flat:
            continue  # it looks at neurons alone, and that one sees [T,N,...]
        with pytest.raises(InputError, match=words):
            values(network, trainer_options, 6, 4, kinds=[kind])


def test_rows_belong_to_their_images():
    # The gradient of one image's loss alone must show in its own row alone.
    torch.manual_seed(0)
    network = contained().eval()
    x = SPIKES.clone().requires_grad_()
    with record_gradients(network) as record:
        torch.autograd.grad(network(x).mean(0)[1].square().sum(), x)
    for operation in record.operations:
        norms = record.values[operation.path][1]
        assert norms[1] > 0, operation.tag
        assert norms[[0, 2]].tolist() == [0, 0], operation.tag


# One value per channel -----------------------------------------------------------------------------------------------------


class OneByOne(nn.Module):
    """Ends in maps of 1x1 before a BatchNorm."""

    def __init__(self, num_classes=4):
        super().__init__()
        self.num_classes = num_classes
        self.pool, self.conv = layer.AdaptiveAvgPool2d(1), layer.Conv2d(3, 5, 1)
        self.bn, self.sn, self.fc = layer.BatchNorm2d(5), IFNeuron().build(), layer.Linear(5, num_classes)
        functional.set_step_mode(self, "m")

    def forward(self, x):
        return self.fc(self.sn(self.bn(self.conv(self.pool(x)))).flatten(2))


def test_a_last_batch_of_one_image_is_refused_in_one_line_and_more_steps_help(trainer_options):
    data = {"train_images": 5, "batch_size": 2, "validation": "test"}
    with pytest.raises(InputError, match="BatchNorm 'bn' sees one value per channel"):
        Trainer(max_epochs=1, **trainer_options).fit(
            SpikingClassifier(OneByOne()), datamodule=TinyDataModule(encoder=DirectEncoder(num_steps=1), **data)
        )
    Trainer(max_epochs=1, **trainer_options).fit(
        SpikingClassifier(OneByOne()), datamodule=TinyDataModule(encoder=PhaseEncoder(num_steps=2), **data)
    )


def batch_mode_probes():
    return [
        AdversarialAccuracy(attack=FGSM(), space="spikes", batch_norm="batch", name="fgsm", max_samples=3),
        GradientSparsity(batch_norm="batch", max_samples=3, name="sparsity"),
    ]


def test_a_probe_leaves_such_a_batch_out_and_says_so(trainer_options, caplog):
    torch.manual_seed(0)
    classifier = SpikingClassifier(OneByOne())
    data = TinyDataModule(validation="test", eval_batch_size=2, encoder=DirectEncoder(num_steps=1))
    metrics = Trainer(callbacks=batch_mode_probes(), **trainer_options).validate(classifier, datamodule=data, verbose=False)[0]
    # Of 3 images in batches of 2 the third is left out: what is logged is that of two.
    expected = Trainer(callbacks=[*batch_mode_probes()], limit_val_batches=1, **trainer_options).validate(
        classifier, datamodule=data, verbose=False
    )[0]
    mine = {name for name in metrics if name.startswith(("fgsm/", "grad_"))}
    assert len(mine) > 10
    assert {name: metrics[name] for name in mine} == {name: expected[name] for name in mine}
    for name in ("fgsm", "sparsity"):
        assert f"probe '{name}': left out 1 image(s) from place 2 on: BatchNorm 'network.bn' sees one value" in caplog.text


# Any LightningModule -------------------------------------------------------------------------------------------------------


class Plain(LightningModule):
    """What anybody writes: images in, logits out."""

    def __init__(self, model=None):
        super().__init__()
        self.model = model or nn.Sequential(*layers(), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(256, 4))
        self.teacher = nn.Linear(2, 2)  # beside the network proper, and never run

    def forward(self, images):
        return self.model(images)

    def training_step(self, batch, index):
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, index):
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


IMAGES, LABELS = torch.rand(20, 3, 32, 32, generator=torch.Generator().manual_seed(3)), torch.arange(20) % 4
SET = TensorDataset(IMAGES, LABELS)


def with_one(value):
    """Return the images with one wrong pixel, in number 9."""
    images = IMAGES.clone()
    images[9, 1, 2, 3] = value
    return TensorDataset(images, LABELS)


def measured(module, options, probes, loader=None):
    loader = loader if loader is not None else DataLoader(SET, batch_size=8)
    return Trainer(callbacks=probes, **options).validate(module, loader, verbose=False)[0]


def test_probes_are_ordinary_callbacks_of_a_plain_trainer(trainer_options):
    torch.manual_seed(0)
    probes = [GradientSparsity(), SparsityOrigin(), AdversarialAccuracy(attack=PGD(steps=2), name="pgd")]
    module = Plain()
    trainer = Trainer(max_epochs=2, callbacks=probes, **trainer_options)
    trainer.fit(module, DataLoader(SET, batch_size=8), DataLoader(SET, batch_size=8))
    names = trainer.callback_metrics.keys()
    assert {"grad_zero/conv/01_model.0", "zero_origin/unselected/bn/02_model.1", "pgd/accuracy", "pgd/clean_accuracy"} <= names
    assert not any("teacher" in name for name in names)
    torch.manual_seed(0)
    alone = Plain()
    Trainer(max_epochs=2, **trainer_options).fit(alone, DataLoader(SET, batch_size=8), DataLoader(SET, batch_size=8))
    for ours, theirs in zip(module.parameters(), alone.parameters(), strict=True):
        assert torch.equal(ours, theirs), "probes leave no trace in foreign modules either"


def test_plain_gradients_against_autograd(trainer_options):
    module = Plain().eval()
    metrics = measured(module, trainer_options, [GradientSparsity(), AdversarialAccuracy(attack=FGSM(eps=0.1), name="fgsm")])
    x = IMAGES.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(module(x), LABELS, reduction="sum"), x)
    assert metrics["grad_norm/input/00_input"] == pytest.approx(gradient.flatten(1).norm(dim=1).mean().item(), rel=1e-4)
    assert metrics["grad_zero/input/00_input"] == pytest.approx((gradient == 0).float().mean().item(), abs=1e-6)
    attacked = (IMAGES + 0.1 * gradient.sign()).clamp(0, 1)
    with torch.no_grad():
        right = (module(attacked).argmax(1) == LABELS).float().mean().item()
    assert metrics["fgsm/accuracy"] == pytest.approx(right)


@pytest.mark.parametrize("batches", [[8, 8, 4], [3, 5, 1, 7, 4], [20]])
def test_any_loader_gives_the_same_values(batches, trainer_options):
    torch.manual_seed(0)
    module, places = Plain(), iter(torch.arange(20).split(batches))
    sampled = DataLoader(SET, batch_sampler=[place.tolist() for place in places])
    expected = measured(module, trainer_options, [GradientSparsity()])
    found = measured(module, trainer_options, [GradientSparsity()], sampled)
    for name, value in expected.items():
        if name.startswith("grad_"):
            assert found[name] == pytest.approx(value, rel=1e-5), name


def test_of_several_loaders_the_first_is_measured(trainer_options, caplog):
    torch.manual_seed(0)
    module = Plain()
    module.validation_step = lambda batch, index, dataloader_idx=0: None
    expected = measured(module, trainer_options, [GradientSparsity()])
    other = DataLoader(TensorDataset(1 - IMAGES, LABELS), batch_size=8)
    trainer = Trainer(callbacks=[GradientSparsity()], **trainer_options)
    trainer.validate(module, [DataLoader(SET, batch_size=8), other], verbose=False)
    name = "grad_norm/input/00_input"
    assert float(trainer.callback_metrics[name]) == pytest.approx(expected[name])
    assert caplog.text.count("only the first of several dataloaders") == 1


def test_spiking_neurons_in_a_plain_module_are_reset(trainer_options):
    class Repeats(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = TinyNetwork()

        def forward(self, images):
            return self.network(images.expand(4, *images.shape)).mean(0)

    metrics = measured(Plain(Repeats()), trainer_options, [GradientSparsity(), SparsityOrigin(), SurrogateSaturation()])
    assert "grad_norm/neuron/03_model.network.sn1" in metrics
    assert "surrogate_silent/03_model.network.sn1" in metrics


def test_other_probes_too(trainer_options):
    class Brightness(Probe):
        """One's own."""

        def measure(self, context, batch):
            assert torch.equal(context.classifier(batch.spikes), context.network(batch.spikes[0]))
            return {"mean": batch.images.float().mean((1, 2, 3))}

    metrics = measured(Plain(), trainer_options, [Brightness(), SynapticOperations(), VulnerabilityRatio()])
    assert metrics["brightness/mean"] == pytest.approx((IMAGES * 255).round().mean().item(), rel=1e-5)
    assert metrics["synaptic_operations/flops"] > 0
    assert "vulnerability_ratio/measured_ratio_median" in metrics


@pytest.mark.parametrize(
    ("probe", "dataset", "model", "words"),
    [
        (AdversarialAccuracy(attack=PGD(), name="it"), TensorDataset(4 * IMAGES - 2, LABELS), None, r"images go from -2 to .*\[0,1\]"),
        (GradientSparsity(at="adversarial", name="it"), TensorDataset(4 * IMAGES, LABELS), None, r"images go from .* to 4"),
        (AdversarialAccuracy(attack=PGD(), space="spikes", name="it"), SET, None, "plain images: give 'image'"),
        (GradientTrail(name="it"), SET, None, "GradientTrail needs batches of spikes"),
        (GradientSparsity(name="it"), TensorDataset(IMAGES, LABELS, LABELS), None, "give a pair of tensors"),
        (GradientSparsity(name="it"), TensorDataset(IMAGES, LABELS.float()), None, "labels torch.float32"),
        (GradientSparsity(name="it"), TensorDataset((255 * IMAGES).byte(), LABELS), None, "images are torch.uint8"),
        (GradientSparsity(name="it"), with_one(float("nan")), None, r"the images measured: number 9 \(from 0\) holds NaN"),
        (AdversarialAccuracy(attack=PGD(), name="it"), with_one(float("nan")), None, r"number 9 \(from 0\) holds NaN"),
        (GradientSparsity(name="it"), with_one(float("inf")), None, r"number 9 \(from 0\) holds an infinite number"),
        (GradientSparsity(name="it"), SET, nn.Unflatten(1, (3, 1)), r"returns \[8, 3, 1, 32, 32\], not logits"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(probe, dataset, model, words, trainer_options):
    module = Plain(model)
    module.validation_step = lambda batch, batch_idx: None
    with pytest.raises(InputError, match=f"^probes.it: .*{words}"):
        measured(module, trainer_options, [probe], DataLoader(dataset, batch_size=8))


def test_the_documented_example_runs(monkeypatch, tmp_path):
    root = Path(__file__).parents[1]
    example = re.findall(r"```python\n(.*?)```", (root / "docs" / "any_module.md").read_text(), re.S)[0]
    assert example in (root / "README.md").read_text(), "the README shows the same"
    assert len([line for line in example.splitlines() if line and not line.startswith(("import", "from"))]) == 15
    trainers, fit = [], Trainer.fit
    monkeypatch.setattr(Trainer, "fit", lambda trainer, *given: (trainers.append(trainer), fit(trainer, *given)))
    monkeypatch.chdir(tmp_path)
    quick = "limit_train_batches=1, limit_val_batches=1, num_sanity_val_steps=0, max_epochs=1, accelerator='cpu', enable_progress_bar=False"
    exec(compile(example.replace("max_epochs=3", quick), "example", "exec"), {"__name__": "example"})
    names = trainers[0].callback_metrics.keys()
    assert {"pgd/accuracy", "grad_zero/conv/01_model.conv1", "zero_origin/unselected/pool/03_model.maxpool"} <= names

from dataclasses import dataclass

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from torch.utils.data import DataLoader, TensorDataset

from snn_sparsity.attacks import FGSM, PGD, Attack, CodeBookAscent
from snn_sparsity.attacks.base import Passes
from snn_sparsity.attacks.targets import SpikeTarget
from snn_sparsity.classifier import SpikingClassifier
from snn_sparsity.probes import AdversarialAccuracy, GradientSparsity, Probe
from snn_sparsity.validation import InputError
from tests.tiny import TinyDataModule, TinyNetwork


@pytest.fixture
def trained(trainer_options):
    torch.manual_seed(0)
    classifier = SpikingClassifier(TinyNetwork())
    Trainer(max_epochs=3, **trainer_options).fit(classifier, datamodule=TinyDataModule())
    return classifier


def every_probe():
    return [
        AdversarialAccuracy(attack=FGSM(), space="spikes", batch_norm="batch", name="fgsm"),
        AdversarialAccuracy(attack=PGD(), space="spikes", name="pgd"),
        AdversarialAccuracy(attack=CodeBookAscent(steps=3), name="codebook"),
        GradientSparsity(),
        GradientSparsity(at="adversarial", name="adversarial"),
        GradientSparsity(batch_norm="batch", name="batch"),
    ]


def test_images_behind_a_code_are_attacked_by_whole_grey_levels(trainer_options):
    def measured(eps, space):
        probe = AdversarialAccuracy(attack=FGSM(eps=eps), space=space, name="it")
        torch.manual_seed(0)
        trainer = Trainer(callbacks=[probe], **trainer_options)
        trainer.validate(SpikingClassifier(TinyNetwork()), TinyDataModule(), verbose=False)
        return probe.describe(), trainer.callback_metrics["it/largest_perturbation"].item()

    described, moved = measured(0.03134, "image")
    assert "FGSM(eps=8/255)" in described
    assert moved == pytest.approx(8 / 255, abs=1e-6)
    with pytest.raises(InputError, match="12.75 grey levels"):
        measured(0.05, "image")
    # Spikes are shown as they are.
    assert measured(0.05, "spikes")[1] == pytest.approx(0.05)


def probe_values(metrics):
    return {name: float(value) for name, value in metrics.items() if not name.startswith(("train/", "val/", "test/", "time/"))}


def test_fit_validate_and_test_give_the_same_numbers(trainer_options):
    torch.manual_seed(0)
    classifier = SpikingClassifier(TinyNetwork())
    data = TinyDataModule(validation="test", eval_batch_size=8)
    trainer = Trainer(max_epochs=2, callbacks=every_probe(), **trainer_options)
    trainer.fit(classifier, datamodule=data)
    fit = probe_values(trainer.callback_metrics)
    assert len(fit) > 60
    for method in ("validate", "test"):
        for inference_mode in (True, False):
            other = Trainer(callbacks=every_probe(), inference_mode=inference_mode, **trainer_options)
            assert probe_values(getattr(other, method)(classifier, datamodule=data, verbose=False)[0]) == fit


def test_accuracy_against_an_offline_loop(trained, trainer_options):
    data = TinyDataModule(eval_batch_size=8)
    probe = AdversarialAccuracy(attack=FGSM(eps=0.3), space="spikes", name="fgsm")
    metrics = Trainer(callbacks=[probe], **trainer_options).test(trained, datamodule=data, verbose=False)[0]
    right = clean = 0
    largest = 0.0
    for raw in data.test_dataloader():
        batch = data.on_after_batch_transfer(raw, 0)
        x = batch.spikes.transpose(0, 1)
        attacked = FGSM(eps=0.3)(SpikeTarget(trained), x, batch.labels)
        trained.eval()
        right += (trained(attacked.transpose(0, 1)).argmax(1) == batch.labels).sum().item()
        clean += (trained(batch.spikes).argmax(1) == batch.labels).sum().item()
        largest = max(largest, (attacked - x).abs().max().item())
    assert metrics["fgsm/accuracy"] == pytest.approx(right / 20)
    assert metrics["fgsm/clean_accuracy"] == pytest.approx(clean / 20) == metrics["test/accuracy"]
    assert metrics["fgsm/largest_perturbation"] == pytest.approx(largest) == pytest.approx(0.3)


@dataclass(frozen=True, kw_only=True)
class Lighten(Attack):
    """Moves every pixel up by eps."""

    def __call__(self, target, x, labels, generator=None):
        return x + self.eps

    @property
    def passes(self):
        return Passes(0, 0)


class LightOrDark(LightningModule):
    """Class 1 for a pixel above 0.5."""

    def forward(self, images):
        return torch.cat([0.5 - images, images - 0.5], 1).flatten(1)

    def test_step(self, batch, batch_idx):
        pass


def test_an_image_that_the_attack_turns_right_is_right(trainer_options):
    # As the paper counts: 0.7 of class 0 is wrong and stays so, 0.3 of class 1 is wrong and becomes right, 0.3 of class 0 is right and
    # becomes wrong, 0.7 of class 1 stays right.
    images, labels = torch.tensor([0.7, 0.3, 0.3, 0.7]).view(4, 1, 1, 1), torch.tensor([0, 1, 0, 1])
    probe = AdversarialAccuracy(attack=Lighten(eps=0.25), name="lighter")
    loader = DataLoader(TensorDataset(images, labels), 4)
    metrics = Trainer(callbacks=[probe], **trainer_options).test(LightOrDark(), loader, verbose=False)[0]
    assert (metrics["lighter/clean_accuracy"], metrics["lighter/accuracy"]) == (0.5, 0.5)
    only_wrong = DataLoader(TensorDataset(images[1:2], labels[1:2]), 1)
    metrics = Trainer(callbacks=[probe], **trainer_options).test(LightOrDark(), only_wrong, verbose=False)[0]
    assert (metrics["lighter/clean_accuracy"], metrics["lighter/accuracy"]) == (0, 1)


def test_drift_of_the_paper_s_protocol_runs_through_the_whole_evaluation(trained, trainer_options):
    data = TinyDataModule(eval_batch_size=5)
    probe = AdversarialAccuracy(attack=FGSM(), space="spikes", batch_norm="batch", name="fgsm")
    metrics = Trainer(callbacks=[probe], **trainer_options).test(trained, datamodule=data, verbose=False)[0]
    target, losses = SpikeTarget(trained, "batch"), []
    for raw in data.test_dataloader():
        batch = data.on_after_batch_transfer(raw, 0)
        attacked = FGSM()(target, batch.spikes.transpose(0, 1), batch.labels)
        losses.append(torch.nn.functional.cross_entropy(target.judge(attacked), batch.labels))
    assert metrics["fgsm/loss"] == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)


def test_a_saturated_network_has_only_samples_without_gradient(trained, trainer_options):
    with torch.no_grad():
        trained.network.fc.weight.mul_(0)
    probe = AdversarialAccuracy(attack=PGD(), space="spikes", name="pgd")
    metrics = Trainer(callbacks=[probe], **trainer_options).test(trained, datamodule=TinyDataModule(), verbose=False)[0]
    assert metrics["pgd/zero_gradient_samples"] == 1.0
    healthy = TinyNetwork()
    metrics = Trainer(callbacks=[AdversarialAccuracy(attack=PGD(), space="spikes", name="pgd")], **trainer_options).test(
        SpikingClassifier(healthy), datamodule=TinyDataModule(), verbose=False
    )[0]
    assert metrics["pgd/zero_gradient_samples"] < 1.0


@dataclass(kw_only=True, eq=False)
class Count(Probe):
    """Remembers which images it was shown."""

    def measure(self, context, batch):
        self.shown = [*getattr(self, "shown", []), (context.first, len(batch.labels))]
        return {"label": batch.labels.float()}


@pytest.mark.parametrize(("limit", "shown"), [(5, [(0, 5)]), (8, [(0, 8)]), (11, [(0, 8), (8, 3)]), (None, [(0, 8), (8, 8), (16, 4)])])
def test_the_first_images_are_measured(limit, shown, trainer_options):
    probe = Count(max_samples=limit)
    data = TinyDataModule(eval_batch_size=8, validation="test")
    metrics = Trainer(callbacks=[probe], **trainer_options).validate(SpikingClassifier(TinyNetwork()), datamodule=data, verbose=False)[0]
    assert probe.shown == shown
    labels = data._splits["test"].labels[:limit].float()
    assert metrics["count/label"] == pytest.approx(labels.mean().item())


def test_a_test_takes_all_images(trainer_options):
    probe = Count(max_samples=3)
    Trainer(callbacks=[probe], **trainer_options).test(SpikingClassifier(TinyNetwork()), datamodule=TinyDataModule(), verbose=False)
    assert sum(count for _, count in probe.shown) == 20


def test_schedule_and_sanity_check(trainer_options):
    class When(Count):
        def on_validation_epoch_end(self, trainer, pl_module):
            seen.append((trainer.sanity_checking, trainer.current_epoch, bool(self._values)))
            super().on_validation_epoch_end(trainer, pl_module)

    seen = []
    probe = When(every_n_epochs=2)
    Trainer(max_epochs=5, callbacks=[probe], **trainer_options | {"num_sanity_val_steps": 2}).fit(
        SpikingClassifier(TinyNetwork()), datamodule=TinyDataModule()
    )
    # The second and fourth epoch are due, and the last always is.
    assert seen == [(True, 0, False), (False, 0, False), (False, 1, True), (False, 2, False), (False, 3, True), (False, 4, True)]


def test_probes_see_gradients_in_eval_mode_and_float32(trainer_options):
    class Look(Count):
        def measure(self, context, batch):
            assert torch.is_grad_enabled()
            assert not torch.is_inference_mode_enabled()
            assert not any(tensor.is_inference() for tensor in batch)
            assert not any(module.training for module in context.classifier.modules())
            assert context.classifier(batch.spikes).dtype == torch.float32
            return super().measure(context, batch)

    for precision in ("32-true", "bf16-mixed"):
        Trainer(callbacks=[Look()], precision=precision, **trainer_options).validate(
            SpikingClassifier(TinyNetwork()), datamodule=TinyDataModule(), verbose=False
        )


def test_sparsity_on_a_small_network_against_autograd(trained, trainer_options):
    data = TinyDataModule(eval_batch_size=20, validation="test")
    metrics = Trainer(callbacks=[GradientSparsity()], **trainer_options).validate(trained, datamodule=data, verbose=False)[0]
    batch = data.on_after_batch_transfer(next(iter(data.val_dataloader())), 0)
    trained.eval()
    kept = {}
    for path in ("conv1", "maxpool", "fc"):
        module = trained.network.get_submodule(path)
        module.register_forward_pre_hook(lambda _, inputs, path=path: (inputs[0].retain_grad(), kept.update({path: inputs[0]}))[0])
    x = batch.spikes.clone().requires_grad_()
    torch.nn.functional.cross_entropy(trained(x), batch.labels, reduction="sum").backward()
    for path, tag in (("conv1", "conv/01_conv1"), ("maxpool", "pool/04_maxpool"), ("fc", "linear/09_fc")):
        gradient = kept[path].grad
        assert metrics[f"grad_zero/{tag}"] == pytest.approx((gradient == 0).float().mean().item(), abs=1e-6)
        norms = gradient.transpose(0, 1).flatten(1).norm(dim=1)
        assert metrics[f"grad_norm/{tag}"] == pytest.approx(norms.mean().item(), rel=1e-4)
    zeros = [metrics["grad_zero/conv/01_conv1"], metrics["grad_zero/conv/05_conv2"]]
    assert metrics["grad_zero_mean/conv"] == pytest.approx(sum(zeros) / 2)
    assert {name.split("/")[1] for name in metrics if name.startswith("grad_zero_mean/")} == {"input", "conv", "bn", "neuron", "linear"}


@pytest.mark.parametrize("flush", [False, True])
@pytest.mark.parametrize("left", [4e-33, 2e-40])
def test_a_dead_channel_is_near_zero_on_any_machine(left, flush, trained, trainer_options):
    with torch.no_grad():
        trained.network.fc.weight[:, 3] = left
    torch.set_flush_denormal(flush)
    metrics = Trainer(callbacks=[GradientSparsity()], **trainer_options).validate(
        trained, TinyDataModule(validation="test"), verbose=False
    )[0]
    for tag in ("linear/09_fc", "pool/08_avgpool", "neuron/07_sn2"):
        assert metrics[f"grad_tiny/{tag}"] == 1 / 16
    if left > 1e-38 and not flush:
        assert metrics["grad_zero/neuron/07_sn2"] == 0
    # The channels before it get their gradient from fifteen others.
    assert metrics["grad_tiny/neuron/03_sn1"] == metrics["grad_zero/neuron/03_sn1"] > 0


def test_two_protocols_never_share_a_curve():
    tags = {probe.tag("grad_zero/conv/01_conv1") for probe in every_probe()[3:]}
    assert tags == {"grad_zero/conv/01_conv1", "grad_zero_adversarial/conv/01_conv1", "grad_zero_batchnorm_batch/conv/01_conv1"}


def test_image_space_needs_an_encoder(trainer_options):
    probe = AdversarialAccuracy(attack=CodeBookAscent(), name="codebook")
    data = TinyDataModule()
    data.spike_encoder, encoder = None, data.spike_encoder
    data.on_after_batch_transfer = lambda raw, index: __import__("snn_sparsity.batch").batch.SpikeBatch(
        encoder(raw.images), raw.labels, raw.images
    )
    with pytest.raises(InputError, match=r"probes.codebook: space='image' needs a datamodule"):
        Trainer(callbacks=[probe], **trainer_options).validate(SpikingClassifier(TinyNetwork()), datamodule=data)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (AdversarialAccuracy, {"space": "pixels"}),
        (AdversarialAccuracy, {"batch_norm": "train"}),
        (AdversarialAccuracy, {"max_samples": 0}),
        (AdversarialAccuracy, {"every_n_epochs": 0}),
        (GradientSparsity, {"kinds": ("relu",)}),
        (GradientSparsity, {"at": "random"}),
        (GradientSparsity, {"batch_norm": "train"}),
    ],
)
def test_bad_settings_are_refused(kind, wrong):
    given = {"attack": FGSM()} if kind is AdversarialAccuracy else {}
    with pytest.raises(InputError, match=next(iter(wrong))):
        kind(**given | wrong)


def fit(probes, options, classifier=None, **more):
    trainer = Trainer(max_epochs=1, callbacks=probes, **options | more)
    trainer.fit(classifier or SpikingClassifier(TinyNetwork()), datamodule=TinyDataModule(train_images=8, test_images=8, validation="test"))
    return trainer


@pytest.mark.parametrize(
    ("probes", "message"),
    [
        ([AdversarialAccuracy(attack=PGD(eps=eps)) for eps in (0.0, 0.5)], "two probes are named 'adversarial_accuracy'"),
        ([GradientSparsity(), GradientSparsity()], "two probes are named 'gradient_sparsity'"),
        ([GradientSparsity(), GradientSparsity(name="other", max_samples=1)], "grad_norm/.* is logged by probes.gradient_sparsity as well"),
        ([GradientSparsity(name="")], "GradientSparsity has name=''"),
    ],
)
def test_two_probes_are_never_mixed(probes, message, trainer_options):
    with pytest.raises(InputError, match=message):
        fit(probes, trainer_options)


@pytest.mark.parametrize("kind", [AdversarialAccuracy, GradientSparsity])
@pytest.mark.parametrize(
    ("attack", "message"), [("PGD", "attack='PGD' is no attack"), (PGD, r"attack=PGD is the class: give an attack made of it, PGD\(\)")]
)
def test_what_is_no_attack_is_refused_at_once(attack, message, kind):
    with pytest.raises(InputError, match=message):
        kind(attack=attack)


@dataclass(kw_only=True, eq=False)
class Returning(Probe):
    """Return whatever it was given as measured."""

    what: object = None

    def measure(self, context, batch):
        return self.what


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (None, "measure returned NoneType; give a dictionary of tensors, by name, each .2."),
        (torch.zeros(2), "measure returned Tensor"),
        ({"x": 1.0}, "measure returned float as 'x'"),
        ({"x": torch.zeros(2, 4)}, r"measure returned \[2, 4\] as 'x'"),
        ({"x": torch.zeros(3)}, r"measure returned \[3\] as 'x'"),
    ],
)
def test_what_a_probe_measured_is_looked_at(what, message, trainer_options):
    with pytest.raises(InputError, match=f"probes.own: {message}"):
        fit([Returning(what=what, name="own", max_samples=2)], trainer_options)


def test_one_number_for_a_batch_is_that_of_each_image(trainer_options):
    probe = Returning(what={"scalar": torch.tensor(3.0), "one": torch.tensor([4.0])}, name="own")
    metrics = fit([probe], trainer_options).callback_metrics
    assert (metrics["own/scalar"], metrics["own/one"]) == (3, 4)


def test_a_fit_without_validation_is_told_once(trainer_options, caplog):
    fit(every_probe(), trainer_options, limit_val_batches=0)
    assert caplog.text.count("this fit has none, so nothing is measured") == 1
    caplog.clear()
    fit([GradientSparsity(max_samples=1)], trainer_options)
    assert "nothing is measured" not in caplog.text


@pytest.mark.parametrize("more", [{}, {"precision": "64-true"}])
def test_a_module_in_double_precision_is_refused_by_name(more, trainer_options):
    classifier = SpikingClassifier(TinyNetwork())
    with pytest.raises(InputError, match=r"weights of torch.float32, and these are torch.float64: give module.float\(\)"):
        fit([GradientSparsity()], trainer_options, classifier if more else classifier.double(), **more)


@pytest.mark.parametrize("options", [{"max_epochs": 100, "max_steps": 6}, {"max_epochs": 2}], ids=["steps", "epochs"])
def test_the_last_epoch_is_measured_whatever_ends_the_fit(options, trainer_options):
    probe = GradientSparsity(every_n_epochs=50)
    trainer = Trainer(**trainer_options | options, callbacks=[probe])
    trainer.fit(SpikingClassifier(TinyNetwork()), datamodule=TinyDataModule(train_images=24, batch_size=8))
    assert trainer.current_epoch < 50
    assert any(name.startswith("grad_zero/") for name in trainer.callback_metrics)


@pytest.mark.parametrize(
    ("every", "options", "expected"),
    [
        (3, {"max_epochs": 7}, [3, 6, 7]),
        # Validated are 2, 4, 6, 8: 3 is made up for at 4.
        (3, {"max_epochs": 8, "check_val_every_n_epoch": 2}, [4, 6, 8]),
        (50, {"max_epochs": 3, "check_val_every_n_epoch": 2}, [2]),
        (50, {"max_epochs": 100, "max_steps": 12, "check_val_every_n_epoch": 3}, [3]),
        # Three steps an epoch: the third is never trained to its end.
        (50, {"max_epochs": 100, "max_steps": 8}, [2]),
        (50, {"max_epochs": 100, "max_steps": 4, "accumulate_grad_batches": 2}, [2]),
        (2, {"max_epochs": 2, "val_check_interval": 0.34}, [2, 2, 2]),
        (50, {"max_epochs": -1, "max_steps": 6, "limit_train_batches": 2}, [3]),
    ],
)
def test_epochs_that_are_measured(every, options, expected, trainer_options):
    class When(Probe):
        def measure(self, context, batch):
            return {"epoch": torch.tensor(float(trainer.current_epoch + 1))}

        def summarise(self, values):
            epochs.append(int(values["epoch"][0]))
            return super().summarise(values)

    epochs = []
    trainer = Trainer(**trainer_options | {"num_sanity_val_steps": 0} | options, callbacks=[When(every_n_epochs=every)])
    trainer.fit(SpikingClassifier(TinyNetwork()), datamodule=TinyDataModule(train_images=24, batch_size=8))
    assert epochs == expected


@pytest.mark.parametrize(("patience", "epochs"), [(1, 2), (2, 3)])
def test_the_epoch_of_an_early_stop_is_measured_if_it_is_due(patience, epochs, trainer_options):
    probe = Count(every_n_epochs=2)
    stop = EarlyStopping("val/loss", patience=patience, min_delta=100.0)
    trainer = Trainer(max_epochs=9, **trainer_options | {"num_sanity_val_steps": 0}, callbacks=[stop, probe])
    trainer.fit(SpikingClassifier(TinyNetwork()), datamodule=TinyDataModule(train_images=8, test_images=4))
    assert trainer.current_epoch == epochs
    # The second alone: nobody knew of the third, when it was validated, that it would be the last.
    assert len(probe.shown) == 1


@pytest.mark.parametrize("order", [("a", "ab"), ("ab", "a")])
def test_values_that_only_some_batches_have_are_refused_by_name(order, trainer_options):
    class Some(Probe):
        def measure(self, context, batch):
            return {name: torch.tensor(0.0) for name in order[context.first // 4]}

    data = TinyDataModule(validation="test", test_images=8, eval_batch_size=4)
    with pytest.raises(InputError, match=r"probes.some: measure returned 'b' for some batches only"):
        Trainer(callbacks=[Some()], **trainer_options).validate(SpikingClassifier(TinyNetwork()), datamodule=data, verbose=False)

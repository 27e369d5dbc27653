"""Which passes are replayed; that losses and gradients are equal on a GPU is for `make gpu-proof` to show."""

import copy

import pytest
import torch
from lightning import LightningModule, Trainer

from snn_sparsity.attacks import BPDA, FGSM, PGD, CodeBookAscent
from snn_sparsity.attacks.targets import ImageTarget, SpikeTarget
from snn_sparsity.classifier import SpikingClassifier
from snn_sparsity.encoders import PhaseEncoder
from snn_sparsity.gradient_rules import SurrogateShape
from snn_sparsity.networks.replay import Replayed
from snn_sparsity.objectives import TRADES, AdversarialTraining
from snn_sparsity.probes import AdversarialAccuracy
from snn_sparsity.training import CUDAGraphs
from snn_sparsity.validation import InputError
from tests.tiny import TinyDataModule, TinyNetwork


def spikes(images=4, seed=1):
    return (torch.rand(3, images, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) < 0.5).float()


class Other(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)

    def training_step(self, batch):
        return torch.nn.functional.cross_entropy(self.layer(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


LABELS = torch.tensor([0, 1, 2, 3])


def twins():
    """Return two equal classifiers, of which the first replays."""
    torch.manual_seed(3)
    one = SpikingClassifier(TinyNetwork())
    other = copy.deepcopy(one)
    one.replayed = Replayed(one.network)
    return one, other


def test_training_passes_are_replayed_and_say_the_same(captured):
    one, other = twins()
    for seed in range(3):
        numbers = torch.get_rng_state()
        losses = [torch.nn.functional.cross_entropy(model(spikes(seed=seed)), LABELS) for model in (one, other)]
        assert torch.equal(torch.get_rng_state(), numbers)
        assert torch.equal(*losses)
        for model, loss in zip((one, other), losses, strict=True):
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert captured == [tuple(spikes().shape)] * 3
    for (name, value), twin in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(value, twin), name


@pytest.mark.parametrize("batch_norm", ["eval", "batch"])
def test_attacks_are_replayed_and_find_the_same(captured, batch_norm):
    """Several targets, as a probe makes for its batches: each drifts by itself."""
    one, other = (model.eval() for model in twins())
    for seed in range(3):
        found, drifted = [], []
        for model in (one, other):
            target = SpikeTarget(model, batch_norm)
            x = spikes(seed=seed).transpose(0, 1)
            found.append(PGD(steps=4)(target, x, LABELS, torch.Generator().manual_seed(seed)))
            drifted.append(target._buffers)
        assert torch.equal(*found)
        assert not torch.equal(found[0], x)
        for name, value in drifted[0].items():
            assert torch.equal(value, drifted[1][name]), name
        for (name, value), twin in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
            assert torch.equal(value, twin), name
    assert len(captured) == 3 * 4


def test_attacks_on_images_are_replayed_and_find_the_same(captured):
    images = torch.randint(0, 256, (4, 3, 32, 32)) / 255
    found = []
    for model in twins():
        target = ImageTarget(model.eval(), PhaseEncoder(3))
        found.append(CodeBookAscent(steps=3)(target, images, LABELS, torch.Generator().manual_seed(0)))
    assert torch.equal(*found)
    assert len(captured) == 3


def test_weights_that_moved_in_place_are_seen_and_others_are_not_replayed(captured):
    one, other = twins()
    x = spikes().transpose(0, 1)
    for change in ("in place", "anew"):
        FGSM()(SpikeTarget(one), x, LABELS)
        with torch.no_grad():
            for mine, its in zip(one.parameters(), other.parameters(), strict=True):
                its.mul_(-1)
                if change == "in place":
                    mine.mul_(-1)
                else:
                    mine.data = -mine.data
        before = len(captured)
        assert torch.equal(FGSM()(SpikeTarget(one), x, LABELS), FGSM()(SpikeTarget(other), x, LABELS)), change
        assert (len(captured) > before) == (change == "in place")


def test_weights_that_learn_later_are_captured_anew(captured):
    """As under BackboneFinetuning: a graph has no gradient for what was frozen when it was captured."""
    gradients = []
    for model in twins():
        for frozen in (True, False):
            model.network.conv1.requires_grad_(not frozen)
            loss = torch.nn.functional.cross_entropy(model(spikes()), LABELS)
            loss.backward()
        gradients.append(model.network.conv1.weight.grad)
    assert gradients[0].count_nonzero() > 0
    assert torch.equal(*gradients)
    assert len(captured) == 2


def test_a_second_pass_before_the_gradient_of_the_first_is_not_replayed(captured):
    """As in TRADES and in the mean over draws: a replay would write over what the first one's gradient needs."""
    gradients = []
    for model in twins():
        logits = model(spikes(seed=1)), model(spikes(seed=2))
        loss = sum(torch.nn.functional.cross_entropy(some, LABELS) for some in logits)
        gradients.append(torch.autograd.grad(loss, list(model.parameters())))
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)
    assert len(captured) == 1


def test_a_pass_whose_gradient_nobody_takes_does_not_end_replaying(captured):
    model, _ = twins()
    for _ in range(3):
        model(spikes())
    assert len(captured) == 3


def test_a_gradient_taken_twice_is_refused(captured):
    model, _ = twins()
    loss = model(spikes()).sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="taken twice"):
        loss.backward()


def test_everything_else_runs_as_ever(captured):
    classifier, _ = twins()
    network = classifier.network
    target, x = SpikeTarget(classifier), spikes().transpose(0, 1)
    classifier(spikes())
    FGSM()(target, x, LABELS)
    assert len(captured) == 2
    classifier(spikes(3))  # the last batch of an epoch
    classifier(spikes().requires_grad_())  # an objective that wants both gradients
    with torch.no_grad():
        classifier(spikes())
    handle = network.sn1.register_forward_hook(lambda *_: None)
    classifier(spikes())
    FGSM()(target, x, LABELS)
    handle.remove()
    assert len(captured) == 2
    classifier.train()(spikes())
    FGSM()(target, x, LABELS)
    assert len(captured) == 4
    assert copy.deepcopy(classifier).replayed is None


def test_an_attack_through_a_backward_rule_is_not_replayed(captured):
    """It would be given the gradient without the rule."""
    found = []
    attack = BPDA(attack=FGSM(), rule=SurrogateShape("triangle"))
    for model in twins():
        target, x = SpikeTarget(model.eval()), spikes().transpose(0, 1)
        plain = FGSM()(target, x, LABELS)
        found.append(attack(target, x, LABELS))
    assert torch.equal(*found)
    assert not torch.equal(found[0], plain)
    assert len(captured) == 1


def test_a_cpu_is_refused_in_one_line(tmp_path):
    trainer = Trainer(
        accelerator="cpu", max_steps=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, callbacks=[CUDAGraphs()],
        default_root_dir=tmp_path, inference_mode=False,
    )  # fmt: skip
    with pytest.raises(InputError, match="^CUDAGraphs: it needs a GPU; leave the callback out$"):
        trainer.fit(SpikingClassifier(TinyNetwork()), datamodule=TinyDataModule(validation="test"))


def test_another_module_is_refused_in_one_line(tmp_path):
    trainer = Trainer(accelerator="cpu", max_steps=1, logger=False, enable_checkpointing=False, callbacks=[CUDAGraphs()])
    data = [(torch.rand(4, 3), torch.zeros(4).long())]
    with pytest.raises(InputError, match="^CUDAGraphs: it is for a SpikingClassifier; leave the callback out$"):
        trainer.fit(Other(), data)


@pytest.mark.parametrize(
    ("objective", "replays"),
    [
        (None, 1),
        (AdversarialTraining([PGD(steps=3, keep="last")]), 4),
        (TRADES(steps=3), 4),  # its second pass of a step runs as ever: the first one's gradient is still wanted
    ],
)
def test_a_run_with_graphs_gives_the_numbers_of_one_without(objective, replays, tmp_path, captured, monkeypatch):
    """Steps, their attacks and those of probes are replayed; validation, which wants no gradient, is not."""

    def begin(self, trainer, module):
        module.replayed = module.replayed or Replayed(module.network)

    monkeypatch.setattr(CUDAGraphs, "_begin", begin)
    weights, logged = [], []
    for callbacks in ([], [CUDAGraphs()]):
        torch.manual_seed(0)
        model = SpikingClassifier(TinyNetwork(), objective=objective)
        probe = AdversarialAccuracy(attack=PGD(steps=2, keep="last"), space="spikes", batch_norm="batch", max_samples=None, name="pgd")
        trainer = Trainer(
            accelerator="cpu", max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            callbacks=[probe, *callbacks], default_root_dir=tmp_path, inference_mode=False,
        )  # fmt: skip
        trainer.fit(model, datamodule=TinyDataModule(validation="test", batch_size=16))
        weights.append(model.state_dict())
        logged.append({name: value for name, value in trainer.callback_metrics.items() if "seconds" not in name})
    images = len(TinyDataModule(validation="test", batch_size=16).load().test.labels)
    assert len(captured) == 2 * (replays * (40 // 16) + 2 * (images // 16))
    assert model.replayed is None
    assert logged[0] == logged[1]
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name

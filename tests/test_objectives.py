"""What a training step minimises: cases by hand, properties, and what each must leave alone."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from lightning import Trainer
from torch import nn

from snn_sparsity.attacks import FGSM, PGD, CodeBookAscent, Noise
from snn_sparsity.attacks.base import input_gradient
from snn_sparsity.batch import SpikeBatch
from snn_sparsity.classifier import SpikingClassifier
from snn_sparsity.encoders import DirectEncoder, PhaseEncoder, QuantisedEncoder
from snn_sparsity.objectives import TRADES, AdversarialTraining, CrossEntropy, SharedNoise, SparseGradient, TrainingStep
from snn_sparsity.objectives.sparse_gradient import probability, runner_up
from snn_sparsity.objectives.trades import kl_divergence
from snn_sparsity.training import OrthogonalRetraction
from snn_sparsity.validation import InputError
from tests.tiny import TinyDataModule, TinyNetwork


class Smooth(nn.Module):
    """A network without spikes, in float64: pixels [T,N,3,2,2] to logits [N,K]."""

    def __init__(self, classes=4):
        super().__init__()
        torch.manual_seed(3)
        self.layers = nn.Sequential(nn.Flatten(2), nn.Linear(12, 16), nn.Softplus(), nn.Linear(16, classes)).double()

    def forward(self, x):
        return self.layers(x).mean(0)


def a_step(classifier, encoder=None, count=6, size=2, classes=4, **more):
    generator = torch.Generator().manual_seed(5)
    images = torch.randint(20, 236, (count, 3, size, size), dtype=torch.uint8, generator=generator)
    labels = torch.randint(classes, (count,), generator=generator)
    encoder = encoder or DirectEncoder(2)
    dtype = next(classifier.parameters()).dtype
    spikes = encoder(images.to(dtype) / 255, torch.Generator().manual_seed(6)).to(dtype)
    return TrainingStep(classifier, SpikeBatch(spikes, labels, images), encoder, **more)


def test_sparse_gradient_by_hand():
    class Linear(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([2.0, -1.0, 0.0], dtype=torch.float64))

        def forward(self, x):
            z = (x[..., 0, 0] * self.weight).sum(-1).mean(0)
            return torch.stack([z, torch.zeros_like(z)], 1)

    classifier, images = Linear(), torch.zeros(1, 3, 1, 1, dtype=torch.uint8)
    step = TrainingStep(classifier, SpikeBatch(images.double().expand(1, 1, 3, 1, 1), torch.tensor([0]), images), DirectEncoder(1))
    loss, logged = SparseGradient(weight=1.0, h=0.01)(step)
    # f1 = 1/2, f2 = sigmoid(.03).
    assert logged["penalty"].item() == pytest.approx(0.56241564, abs=1e-8)
    assert logged["gradient_zeros"].item() == pytest.approx(1 / 3)
    (loss - math.log(2)).backward()
    cross_entropy_part = 0.0  # x is 0
    assert classifier.weight.grad.tolist() == pytest.approx([0.3748875 + cross_entropy_part, -0.3748875, 0.0], abs=1e-6)


@pytest.mark.parametrize("h", [1e-3, 1e-4])
def test_the_penalty_is_the_squared_l1_norm_of_the_gradient_of_a_smooth_network(h):
    step = a_step(Smooth())
    _, logged = SparseGradient(h=h)(step)
    x, labels = step.images.requires_grad_(), step.batch.labels
    logits = step.classifier(step.shown(x))
    rival = runner_up(logits, labels)
    (gradient,) = torch.autograd.grad(probability(logits, labels, rival).sum(), x)
    assert logged["penalty"].item() == pytest.approx(gradient.abs().flatten(1).sum(1).square().mean().item(), rel=50 * h)


def test_the_runner_up_is_that_of_the_first_pass_and_large_logits_do_no_harm():
    logits = torch.tensor([[1000.0, -1000.0, 999.0], [0.0, 3.0, -3.0]], requires_grad=True)
    rival = runner_up(logits, torch.tensor([0, 1]))
    assert rival.tolist() == [2, 0]
    value = probability(logits, torch.tensor([0, 1]), rival)
    assert value.isfinite().all()
    assert torch.autograd.grad(value.sum(), logits)[0].isfinite().all()


def test_without_weight_sparse_gradient_is_plain_training_and_one_pass():
    step = a_step(Smooth())
    calls = []
    step.classifier.register_forward_hook(lambda *_: calls.append(1))
    loss, _ = SparseGradient(weight=0.0)(step)
    plain, _ = CrossEntropy()(step)
    assert torch.equal(loss, plain)
    assert len(calls) == 2


def test_a_penalty_on_a_network_that_sees_nothing_is_zero():
    classifier = Smooth()
    for parameter in classifier.parameters():
        nn.init.zeros_(parameter)
    loss, logged = SparseGradient(weight=1.0)(a_step(classifier))
    loss.backward()
    assert logged["penalty"] == 0
    assert logged["gradient_zeros"] == 1


def test_sr_lowers_the_l1_norm_of_the_gradient():
    def norm_after(weight):
        step = a_step(Smooth(), count=24)
        optimizer = torch.optim.SGD(step.classifier.parameters(), lr=0.1)
        for _ in range(40):
            optimizer.zero_grad()
            SparseGradient(weight=weight)(step).loss.backward()
            optimizer.step()
        gradient, logits = input_gradient(lambda x: step.classifier(step.shown(x)), step.images, step.batch.labels)
        return gradient.abs().flatten(1).sum(1).median(), F.cross_entropy(logits, step.batch.labels)

    (plain, _), (sparse, _) = norm_after(0.0), norm_after(5.0)
    assert sparse < 0.7 * plain


def test_adversarial_training_trains_on_the_attacked_images_alone():
    step = a_step(Smooth())
    attack = PGD(eps=8 / 255, alpha=2 / 255, steps=3, keep="last")
    seen = []
    step.classifier.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    loss, _ = AdversarialTraining([attack])(step)
    plain, _ = CrossEntropy()(step)
    assert loss > plain
    x_adv = seen[-2][0]
    assert 0 < (x_adv - step.images).abs().max() <= 8 / 255 + 1e-9
    assert torch.equal(seen[-2][0], seen[-2][1]), "one change for all time steps"


@pytest.mark.parametrize(("share", "ranks"), [(0.5, 1), (0.5, 2), (0.0, 1), (1.0, 2)])
def test_a_share_is_the_same_images_on_any_number_of_processes(share, ranks):
    chosen = torch.zeros(8, dtype=torch.bool)
    for rank in range(ranks):
        part = TrainingStep(Smooth(), SpikeBatch(torch.zeros(1), torch.zeros(8 // ranks), torch.zeros(1)), rank=rank, world_size=ranks)
        chosen[rank::ranks] = part.first(share)
    assert torch.equal(chosen, torch.arange(8) < 8 * share)


def test_attacks_are_drawn_by_their_probabilities(monkeypatch):
    objective = AdversarialTraining([FGSM(), Noise()], probabilities=[0.5, 0.3])
    step, drawn = a_step(Smooth()), []
    monkeypatch.setattr(TrainingStep, "attacked", lambda self, attack, *_: drawn.append(attack) or self.batch.spikes)
    for number in range(2000):
        objective(step._replace(number=number))
    shares = [*(drawn.count(attack) / 2000 for attack in objective.attacks), 1 - len(drawn) / 2000]
    # Five standard deviations.
    assert shares == pytest.approx([0.5, 0.3, 0.2], abs=0.056)


def test_trades_attacks_the_divergence():
    step = a_step(Smooth())
    objective = TRADES(beta=3.0, steps=5)
    loss, logged = objective(step)
    logits = step.classifier(step.batch.spikes)
    x_adv = objective._craft(step)
    assert (x_adv - step.images).abs().max() <= objective.eps + 1e-9
    expected = kl_divergence(step.classifier(step.shown(x_adv)), logits).mean()
    assert logged["divergence"].item() == pytest.approx(expected.item())
    assert loss.item() == pytest.approx((F.cross_entropy(logits, step.batch.labels) + 3 * expected).item())
    random = step.images + (torch.randint(0, 2, step.images.shape) * 2 - 1) * objective.eps
    assert expected > kl_divergence(step.classifier(step.shown(random.clamp(0, 1))), logits).mean()
    p, q = torch.tensor([[0.7, 0.3]]), torch.tensor([[0.4, 0.6]])
    by_hand = 0.7 * math.log(0.7 / 0.4) + 0.3 * math.log(0.3 / 0.6)
    assert kl_divergence(q.log(), p.log()).item() == pytest.approx(by_hand, rel=1e-5)


def trained(objective, steps, encoder, number_of=lambda i: i):
    """Weights after SGD steps, and the inputs that the network saw."""
    step = a_step(Smooth(), encoder)
    optimizer, seen = torch.optim.SGD(step.classifier.parameters(), lr=0.1), []
    step.classifier.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    for i in range(steps):
        optimizer.zero_grad()
        objective(step._replace(number=number_of(i))).loss.backward()
        optimizer.step()
    return nn.utils.parameters_to_vector(step.classifier.parameters()), seen, step


def test_shared_noise_of_one_period_is_plain_training():
    ours, _, _ = trained(SharedNoise(periods=1, eps=0.5), 3, DirectEncoder(4))
    plain, _, _ = trained(CrossEntropy(), 3, DirectEncoder(4))
    assert torch.equal(ours, plain)


def test_shared_noise_without_noise_is_two_half_steps():
    ours, seen, _ = trained(SharedNoise(periods=2, eps=0.0), 4, DirectEncoder(4))
    plain, _, _ = trained(CrossEntropy(), 4, DirectEncoder(2))
    assert torch.equal(ours, plain)
    assert sum(len(spikes) for spikes in seen) == 2 * 4, "two batches, each of T steps in all"


def test_shared_noise_comes_from_the_same_backward_pass_and_ends_with_the_batch():
    objective = SharedNoise(periods=3, step=6 / 255, eps=8 / 255)
    _, seen, step = trained(objective, 4, DirectEncoder(6))
    noise = [spikes[0] - step.images for spikes in seen]
    assert noise[0].abs().max() == 0
    gradient, _ = input_gradient(lambda x: Smooth()(x.expand(2, *x.shape)), step.images, step.batch.labels)
    torch.testing.assert_close(noise[1], 6 / 255 * gradient.sign())
    assert noise[2].abs().max().item() == pytest.approx(8 / 255)
    assert noise[3].abs().max() == 0, "the next batch begins clean"
    assert all(torch.equal(spikes[0], spikes[-1]) for spikes in seen)


def test_each_batch_is_replayed_for_as_many_steps_as_there_are_periods(trainer_options):
    seen = []

    class Watching(SpikingClassifier):
        def training_step(self, batch, batch_idx):
            seen.append(batch.images)
            return super().training_step(batch, batch_idx)

    classifier = Watching(TinyNetwork(), objective=SharedNoise(periods=2))
    trainer = Trainer(**trainer_options, max_epochs=1, limit_val_batches=0)
    trainer.fit(classifier, datamodule=TinyDataModule(encoder=DirectEncoder(4)))
    assert trainer.global_step == len(seen) == 2 * math.ceil(36 / 16)
    assert all(torch.equal(one, other) for one, other in zip(seen[::2], seen[1::2], strict=True))
    assert not torch.equal(seen[0], seen[2])


@pytest.mark.parametrize("encoder", [PhaseEncoder(8), QuantisedEncoder(8, levels=2)], ids=["phase", "random"])
def test_codes_without_a_value_are_clipped_and_rounded(encoder):
    torch.manual_seed(0)
    step = a_step(SpikingClassifier(TinyNetwork()), encoder, size=32)
    seen = []
    step.classifier.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    SparseGradient(h=0.5)(step)
    first, second = seen
    assert not torch.equal(first, second)
    if isinstance(encoder, PhaseEncoder):
        levels = encoder.decode(second).int() - encoder.decode(first).int()
        assert levels.abs().max() <= 128
        assert set(second.unique().tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: AdversarialTraining([]), "at least one"),
        (lambda: AdversarialTraining([FGSM()], [0.5, 0.5]), "one for each"),
        (lambda: AdversarialTraining([FGSM(), FGSM()], [0.7, 0.5]), "add up to 1.2"),
        (lambda: AdversarialTraining(share=1.5), "share"),
        (lambda: AdversarialTraining(space="pixels"), "space"),
        (lambda: SparseGradient(weight=-1.0), "weight"),
        (lambda: SparseGradient(h=0.0), "h=0.0"),
        (lambda: TRADES(steps=0), "steps"),
        (lambda: SharedNoise(periods=0), "periods"),
        (lambda: SparseGradient()(a_step(Smooth(1), classes=1)), "at least 2 classes"),
        (lambda: SharedNoise(periods=3)(a_step(Smooth(), DirectEncoder(4))), "does not divide"),
        (lambda: AdversarialTraining([CodeBookAscent()], space="spikes")(a_step(Smooth())), "space='image'"),
        (lambda: AdversarialTraining()(a_step(Smooth())._replace(encoder=None)), "encoder"),
        (lambda: AdversarialTraining([PGD(eps=0.05)])(a_step(Smooth(), PhaseEncoder())), "12.75 grey levels"),
        (lambda: TRADES(eps=0.05)(a_step(Smooth(), PhaseEncoder())), "12.75 grey levels"),
        (lambda: QuantisedEncoder()(torch.zeros(1, 3, 2, 2)), "generator"),
    ],
)
def test_mistakes_are_told(make, told):
    with pytest.raises(InputError, match=told):
        make()


@pytest.mark.parametrize(
    "objective",
    [
        AdversarialTraining([PGD(steps=2, eps=8 / 255), FGSM()], [0.4, 0.3], share=0.5),
        TRADES(steps=2),
        SparseGradient(attack=FGSM()),
        SharedNoise(),
    ],
    ids=lambda objective: type(objective).__name__,
)
def test_a_run_that_goes_on_ends_with_the_same_bytes(objective, trainer_options, tmp_path):
    def weights(epochs, checkpoint=None):
        torch.manual_seed(4)
        classifier = SpikingClassifier(TinyNetwork(), objective=objective)
        trainer = Trainer(**trainer_options, max_epochs=epochs, limit_val_batches=0, callbacks=[OrthogonalRetraction()])
        trainer.fit(classifier, datamodule=TinyDataModule(encoder=DirectEncoder(4), crop=2), ckpt_path=checkpoint, weights_only=True)
        trainer.save_checkpoint(tmp_path / f"{epochs}.ckpt")
        return classifier.state_dict()

    whole = weights(2)
    weights(1)
    went_on = weights(2, tmp_path / "1.ckpt")
    for name, value in whole.items():
        assert torch.equal(value, went_on[name]), name


def test_shared_noise_begins_without_noise_where_a_run_goes_on_inside_a_batch():
    class Step:
        images, number = torch.full((2, 1, 1, 1), 0.5), 1
        batch = SimpleNamespace(labels=torch.tensor([0, 1]))

        def shown(self, x):
            return x.expand(2, *x.shape)

        def logits(self, spikes):
            return spikes.mean(0).flatten(1) * torch.tensor([1.0, -1.0])

    outcome = SharedNoise(periods=2)(Step())
    assert [float(value) for value in outcome.logged.values()] == [0]

import pytest
import torch

from snn_sparsity.attacks import FGSM, PGD, CodeBookAscent
from snn_sparsity.attacks.base import Passes, input_gradient
from snn_sparsity.attacks.metering import Meter, Metered
from snn_sparsity.attacks.targets import ImageTarget
from snn_sparsity.encoders import PhaseEncoder


class Plain:
    space, bounds = "image", (0.0, 1.0)

    def __init__(self, logits):
        self.logits = logits


def metered(logits, labels):
    meter = Meter(torch.tensor(labels))
    return meter, Metered(Plain(logits), meter)


@pytest.mark.parametrize(
    "attack", [FGSM(), PGD(), PGD(keep="last"), PGD(restarts=3, steps=2), PGD(restarts=2, steps=1, keep="last")], ids=str
)
def test_passes_are_counted_and_equal_the_formula(attack):
    meter, target = metered(lambda x: x, [0, 1])
    attack(target, torch.tensor([[0.9, 0.1, 0.5], [0.2, 0.8, 0.5]]), torch.tensor([0, 1]))
    assert Passes(meter.forwards, meter.backwards) == Passes(*(2 * count for count in attack.passes))
    assert len(meter.losses) == attack.passes.backwards


def test_the_spikes_behind_an_image_are_on_the_same_meter(classifier):
    meter = Meter(torch.tensor([0, 1]))
    images = torch.rand(2, 3, 32, 32)
    CodeBookAscent(steps=3)(Metered(ImageTarget(classifier, PhaseEncoder()), meter), images, meter.labels)
    assert (meter.forwards, meter.backwards) == (8, 6)


def test_zero_gradients_are_told_by_sample_and_by_step():
    # The first sample never has a gradient; the second loses it after the first step of 0.3.
    def logits(x):
        alive = torch.where(x[:, :1] < 0.6, x[:, :1], x[:, :1].detach())
        return torch.cat([torch.zeros_like(alive), alive * torch.tensor([[0.0], [1.0]])], 1)

    meter, target = metered(logits, [0, 0])
    PGD(eps=0.5, alpha=0.3, steps=2, random_start=False)(target, torch.tensor([[0.5], [0.5]]), meter.labels)
    assert meter.zero_at_start.tolist() == [True, False]
    assert meter.zero.tolist() == [True, True]


def test_an_iterate_that_fooled_is_remembered():
    # One step of 0.6 overshoots the band in which label 0 loses; the attack ends outside it.
    meter, target = metered(lambda x: torch.cat([(x - 0.5).abs(), torch.full_like(x, 0.1)], 1), [0])
    x = torch.tensor([[0.45]])
    assert not meter.fooled.item()
    target.logits(x)
    target.logits(torch.tensor([[0.9]]))
    assert meter.fooled.item()


def test_draws_of_a_random_network_are_averaged_and_counted():
    weights = torch.tensor([[1.0, -1.0], [3.0, -1.0]])  # two draws of a network with one input
    meter, target = metered(lambda x: torch.stack([x * draw for draw in weights]), [1])
    gradient, logits = input_gradient(target.logits, torch.tensor([[0.5]]), torch.tensor([1]), "margin")
    assert gradient.item() == 3.0  # mean of (1 + 1) and (3 + 1)
    assert logits.tolist() == [[1.0, -0.5]]
    assert (meter.forwards, meter.backwards) == (2, 2)

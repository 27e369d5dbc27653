import json
from math import isclose

import numpy as np
import pytest
import torch
from scipy import stats

from snn_sparsity.attacks.metering import Meter, Metered
from snn_sparsity.attacks.targets import ImageTarget, SpikeTarget
from snn_sparsity.audit.collect.fidelity import FRACTIONS, fidelity, group_fidelity, move_fidelity, rank_correlation
from snn_sparsity.classifier import SpikingClassifier
from snn_sparsity.encoders import DirectEncoder, PhaseEncoder
from snn_sparsity.validation import InputError
from tests.test_attacks import LinearCode
from tests.tiny import TinyNetwork

LABELS = torch.zeros(4, dtype=torch.int64)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class Misled:
    """A target on which z = (0, sum w s) and the gradient is that of other weights."""

    space, bounds = "spikes", (0.0, 1.0)

    def __init__(self, weights, backward):
        self.weights, self.backward, self.asked = weights, backward, []

    def logits(self, x):
        self.asked.append(x.detach())
        true, told = ((x * weights).flatten(1).sum(1) for weights in (self.weights, self.backward))
        return torch.stack([torch.zeros(len(x)), true.detach() + told - told.detach()], 1)


def coded(weights, backward):
    """The same behind a phase code."""
    target = LinearCode(PhaseEncoder(), weights)
    target.spikes = Misled(weights, backward)
    return target


@pytest.fixture
def weights():
    return torch.randn(10, 3, 5, 5, generator=generator(1))


@pytest.fixture
def images():
    return torch.randint(0, 256, (4, 3, 5, 5), generator=generator(2)) / 255


@pytest.fixture
def spikes(images):
    return PhaseEncoder()(images).transpose(0, 1)


# Pure --------------------------------------------------------------------------------------------------------------------


def test_signs_and_ranks_by_hand():
    predicted = torch.tensor([[1.0, 0.0], [2.0, 0.0], [-1.0, 0.0]])
    true = torch.tensor([[3.0, 1.0], [-1.0, -2.0], [-2.0, 0.0]])
    # First sample: 2 of 3 agree, ranks 2 3 1 against 3 2 1. Second: no prediction, half a move each, no correlation.
    agree, rank = fidelity(predicted, true)
    assert agree == pytest.approx((2 + 1.5) / 6)
    assert rank == pytest.approx((0.5 + 0) / 2)


def test_rank_correlation_is_scipy_s():
    values = np.random.default_rng(3).integers(0, 6, (2, 40)).astype(float)
    assert isclose(rank_correlation(*values), stats.spearmanr(*values).statistic)


# Targets with a gradient -------------------------------------------------------------------------------------------------


def test_a_true_gradient_predicts_a_linear_function(weights, spikes):
    assert move_fidelity(Misled(weights, weights), spikes, LABELS, loss="margin") == pytest.approx((1.0, 1.0))


def test_a_gradient_of_the_wrong_sign_is_never_right(weights, spikes):
    assert move_fidelity(Misled(weights, -weights), spikes, LABELS, loss="margin") == pytest.approx((0.0, -1.0))


def test_a_random_gradient_is_a_coin(weights, spikes):
    other = torch.randn(weights.shape, generator=generator(4))
    agree, rank = move_fidelity(Misled(weights, other), spikes, LABELS, draws=200, loss="margin")
    assert abs(agree - 0.5) < 0.1
    assert abs(rank) < 0.2


def test_without_a_gradient_every_move_is_half_right(weights, spikes):
    assert move_fidelity(Misled(weights, 0 * weights), spikes, LABELS) == (0.5, 0.0)


def test_moves_are_corners_of_the_ball_cut_at_the_bounds(weights, spikes):
    target = Misled(weights, weights)
    move_fidelity(target, spikes, LABELS, generator(5), eps=0.25, draws=6)
    ends = torch.stack(target.asked[2:])
    assert len(ends) == 6
    assert sorted({round(value, 4) for value in ends.flatten().tolist()}) == [0.0, 0.25, 0.75, 1.0]
    assert 0.4 < ((ends - spikes).abs() == 0.25).float().mean() < 0.6
    assert not torch.equal(ends[0], ends[1])


# Codes -------------------------------------------------------------------------------------------------------------------


def test_a_true_spike_gradient_predicts_any_move_of_levels_under_a_linear_functional(weights, images):
    found = group_fidelity(coded(weights, weights), images, LABELS, loss="margin")
    assert list(found) == list(FRACTIONS)
    for each in found.values():
        assert each == pytest.approx((1.0, 1.0), abs=1e-3)


def test_a_wrong_spike_gradient_predicts_the_opposite(weights, images):
    target = coded(weights, -weights)
    assert group_fidelity(target, images, LABELS, fractions=[1.0], loss="margin")[1.0] == pytest.approx((0.0, -1.0), abs=1e-3)


@pytest.mark.parametrize(("fraction", "pixels"), [(0.0, 1), (0.1, 8), (1.0, 75)])
def test_a_group_is_that_many_pixels_at_other_levels_of_the_ball(weights, images, fraction, pixels):
    target, clean = coded(weights, weights), (255 * images).round().int()
    group_fidelity(target, images, LABELS, generator(7), eps=3 / 255, draws=40, fractions=[fraction])
    moves = [PhaseEncoder().decode(asked.transpose(0, 1)).int() - clean for asked in target.spikes.asked[2:]]
    assert len(moves) == 40
    for move in moves:
        assert ((move != 0).flatten(1).sum(1) == pixels).all()
    found = torch.stack(moves)
    inside = ((clean >= 3) & (clean <= 252)).expand_as(found)
    assert set(found[inside].unique().tolist()) == {-3, -2, -1, 0, 1, 2, 3} - ({0} if fraction == 1 else set())


def test_the_ends_of_the_scale_stay_in_the_ball(weights):
    images = torch.stack([torch.zeros(3, 5, 5), torch.full((3, 5, 5), 254 / 255)])
    target = coded(weights, weights)
    group_fidelity(target, images, LABELS[:2], eps=2 / 255, fractions=[1.0])
    low, high = PhaseEncoder().decode(torch.cat(target.spikes.asked[2:]).transpose(0, 1)).view(-1, 2, 75).unbind(1)
    assert set(low.unique().tolist()) == {1, 2}
    assert set(high.unique().tolist()) == {252, 253, 255}


def spiking(encoder):
    torch.manual_seed(8)
    return ImageTarget(SpikingClassifier(TinyNetwork()).eval(), encoder)


# Housekeeping ------------------------------------------------------------------------------------------------------------


def test_costs_are_those_documented():
    target, labels = spiking(DirectEncoder(2)), torch.tensor([0, 1])
    x = torch.randint(0, 256, (2, 3, 32, 32), generator=generator(11)) / 255
    counted = []
    for measure in (
        lambda metered: move_fidelity(metered, x, labels, draws=3),
        lambda metered: group_fidelity(metered, x, labels, draws=3, fractions=[0.1, 1.0]),
    ):
        meter = Meter(labels)
        measure(Metered(target, meter))
        counted.append((meter.forwards / 2, meter.backwards / 2))
    assert counted == [(3 + 2, 1), (2 * 3 + 2, 1)]


def test_results_are_plain_floats_from_the_generator_alone(spikes, weights, images):
    before = torch.get_rng_state()
    results = []
    for seed in (1, 1, 2):
        target = coded(weights, torch.randn(weights.shape, generator=generator(12)))
        group = group_fidelity(target, images, LABELS, generator(seed))
        moves = move_fidelity(target.spikes, spikes, LABELS, generator(seed))
        results.append(json.dumps([[value._asdict() for value in group.values()], moves._asdict()]))
    assert results[0] == results[1] != results[2]
    assert torch.equal(before, torch.get_rng_state())


def test_spikes_of_a_spiking_network_are_measured_too(classifier):
    spikes = torch.randint(0, 2, (4, 6, 3, 32, 32), generator=generator(13)).float()
    agree, rank = move_fidelity(SpikeTarget(classifier), spikes, LABELS, draws=4)
    assert 0 <= agree <= 1
    assert -1 <= rank <= 1


def test_codes_are_needed_and_whole_levels(classifier, weights, images):
    with pytest.raises(InputError, match="code book"):
        group_fidelity(SpikeTarget(classifier), images, LABELS)
    with pytest.raises(InputError, match=r"eps=0.05 is 12.75 grey levels"):
        group_fidelity(coded(weights, weights), images, LABELS, eps=0.05)


def test_groups_need_a_ball_to_move_in(weights, images):
    with pytest.raises(InputError, match="eps=0 is not allowed"):
        group_fidelity(coded(weights, weights), images, LABELS, eps=0)

import pytest
import torch
from spikingjelly.activation_based import encoding, functional

from snn_sparsity.encoders import DirectEncoder, LatencyEncoder, PhaseEncoder, RateEncoder
from snn_sparsity.validation import InputError

ALL_LEVELS = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)


def test_phase_code_of_192_and_1_by_hand():
    spikes = PhaseEncoder(num_steps=10)(torch.tensor([[[[192, 1]]]], dtype=torch.uint8))
    assert spikes[:, 0, 0, 0, 0].tolist() == [1, 1, 0, 0, 0, 0, 0, 0, 1, 1]
    assert spikes[:, 0, 0, 0, 1].tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 0, 0]


def test_weighted_phase_code_by_hand():
    spikes = PhaseEncoder(num_steps=3, num_bits=2, weighted=True)(torch.tensor([[[[255]]]], dtype=torch.uint8))
    assert spikes.flatten().tolist() == [0.5, 0.25, 0.5]


@pytest.mark.parametrize("weighted", [False, True])
def test_phase_round_trip_for_all_levels(weighted):
    encoder = PhaseEncoder(weighted=weighted)
    assert torch.equal(encoder.decode(encoder(ALL_LEVELS)), ALL_LEVELS)


def test_decoding_needs_all_bits():
    with pytest.raises(InputError, match="num_steps >= num_bits"):
        PhaseEncoder(num_steps=7).decode(PhaseEncoder(num_steps=7)(ALL_LEVELS))


def test_fewer_bits_drop_the_lowest():
    decoded = PhaseEncoder(num_bits=3).decode(PhaseEncoder(num_bits=3)(ALL_LEVELS))
    assert torch.equal(decoded, ALL_LEVELS // 32 * 32)


def test_phase_equals_spikingjelly_bit_for_bit():
    encoder = encoding.WeightedPhaseEncoder(8)
    theirs = torch.stack([encoder(ALL_LEVELS / 256) for _ in range(10)])
    functional.reset_net(encoder)
    assert torch.equal(PhaseEncoder()(ALL_LEVELS), theirs)


def test_latency_equals_spikingjelly_bit_for_bit():
    encoder = encoding.LatencyEncoder(10, "linear")
    theirs = torch.stack([encoder(ALL_LEVELS / 255) for _ in range(10)])
    assert torch.equal(LatencyEncoder(10)(ALL_LEVELS), theirs.float())


def test_rate_code_fires_with_the_brightness():
    spikes = RateEncoder(num_steps=2000)(ALL_LEVELS, torch.Generator().manual_seed(1))
    # 2000 draws: a standard error of at most 0.0112.
    assert (spikes.mean(0) - ALL_LEVELS / 255).abs().max() < 5 * 0.0112
    assert spikes[:, ALL_LEVELS == 0].sum() == 0
    assert spikes[:, ALL_LEVELS == 255].min() == 1


def test_float_images_are_put_on_the_lattice():
    encoder = PhaseEncoder()
    assert torch.equal(encoder(ALL_LEVELS / 255), encoder(ALL_LEVELS))
    # 1e-9 below a level must not flip a bit.
    assert torch.equal(encoder((ALL_LEVELS / 255 - 1e-9).clamp(0, 1)), encoder(ALL_LEVELS))


def test_direct_code_has_the_identity_gradient():
    images = torch.rand(1, 3, 2, 2, requires_grad=True)
    spikes = DirectEncoder(num_steps=4)(images)
    (gradient,) = torch.autograd.grad(spikes.sum(), images)
    assert gradient.unique().tolist() == [4.0]
    assert torch.equal(spikes.detach()[0] * 255, (images.detach() * 255).round())


@pytest.mark.parametrize("encoder", [PhaseEncoder(), LatencyEncoder(), RateEncoder()])
def test_codes_without_gradient_say_so(encoder):
    with pytest.raises(InputError, match="no gradient"):
        encoder(torch.rand(1, 3, 2, 2, requires_grad=True))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.full((1, 3, 2, 2), 1.5), "from 1.5 to 1.5"),
        (torch.full((1, 3, 2, 2), -0.1), "-0.1"),
        (torch.full((1, 3, 2, 2), float("nan")), r"number 0 \(from 0\) holds NaN"),
        (torch.zeros(3, 2, 2), r"shape \[3, 2, 2\]"),
        (torch.zeros(1, 3, 2, 2, dtype=torch.int64), "int64"),
    ],
)
def test_bad_pixels_are_refused(images, message):
    with pytest.raises(InputError, match=message):
        PhaseEncoder()(images)


@pytest.mark.parametrize("wrong", [{"num_steps": 0}, {"num_bits": 0}, {"num_bits": 9}, {"num_steps": 2.5}, {"num_steps": True}])
def test_bad_settings_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        PhaseEncoder(**wrong)

"""Attacks do not mind how their inputs lie in memory, nor their precision."""

from types import SimpleNamespace

import pytest
import torch

from snn_sparsity import attacks
from snn_sparsity.attacks import (
    APGD,
    EOT,
    FGSM,
    PGD,
    SAPGD,
    SPSA,
    HopSkipJump,
    Noise,
    RandomFlips,
    RayS,
    SpikeFlips,
    Square,
)

ATTACKS = [
    FGSM(), PGD(restarts=2), PGD(keep="last"), APGD(steps=10), APGD(steps=10, loss="targeted"), SAPGD(steps=10), EOT(PGD(steps=3), draws=2),
    SPSA(steps=2, directions=2), Square(queries=30), RayS(queries=60), HopSkipJump(queries=60), Noise(draws=3), SpikeFlips(flips=9),
    SpikeFlips(flips=9, random_start=True), RandomFlips(flips=9, queries=30),
]  # fmt: skip


def case(dtype):
    """A linear classifier of spikes as a data loader brings them, time first, and these turned round."""
    numbers = torch.Generator().manual_seed(0)
    weights = torch.randn(4, 144, generator=numbers).to(dtype)
    spikes = (torch.rand(3, 5, 3, 4, 4, generator=numbers) > 0.5).to(dtype).transpose(0, 1)
    target = SimpleNamespace(space="spikes", bounds=(0.0, 1.0), logits=lambda x: x.flatten(1) @ weights.T)
    return target, spikes, target.logits(spikes).argmax(1)


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_however_they_lie_in_memory_and_in_their_own_precision(attack, dtype):
    target, spikes, labels = case(dtype)
    found, expected = (attack(target, x, labels, torch.Generator().manual_seed(1)) for x in (spikes, spikes.contiguous()))
    assert not spikes.is_contiguous()
    assert torch.equal(found, expected)
    assert found.dtype == dtype
    assert (found != spikes).any()


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_no_image_at_all_is_no_mistake(attack):
    target, spikes, labels = case(torch.float32)
    assert attack(target, spikes[:0], labels[:0], torch.Generator().manual_seed(1)).shape == (0, *spikes.shape[1:])


def test_no_attack_is_forgotten():
    made_of_others_or_on_pixels = {"AnnealedPGD", "BPDA", "CodeBookAscent", "MDSE", "Swap", "Transfer"}
    every = {name for name in attacks.__all__ if isinstance(kind := getattr(attacks, name), type) and issubclass(kind, attacks.Attack)}
    assert {type(attack).__name__ for attack in ATTACKS} == every - made_of_others_or_on_pixels - {"Attack"}

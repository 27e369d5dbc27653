"""What happens to weights after a step: cases by hand, the map of singular values, and when it happens."""

import pytest
import torch
from lightning import Trainer
from torch import nn

from snn_sparsity.classifier import SpikingClassifier
from snn_sparsity.encoders import DirectEncoder
from snn_sparsity.networks import WideResNet
from snn_sparsity.networks.constraints import retract, simplex_projection
from snn_sparsity.training import OrthogonalRetraction, SimplexProjection
from snn_sparsity.validation import InputError
from tests.tiny import TinyDataModule, TinyNetwork


def retracted(weight, beta, times=1, rows=None):
    weight = weight.clone()
    for _ in range(times):
        retract(weight, beta, rows)
    return weight


def test_retraction_by_hand_and_as_a_gradient_step():
    weight = torch.tensor([[1.0, 2.0], [0.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(retracted(weight, 0.1), torch.tensor([[0.6, 1.0], [-0.2, 0.6]], dtype=torch.float64))
    other = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    energy = (other @ other.T - torch.eye(5)).square().sum() / 4
    (gradient,) = torch.autograd.grad(energy, other)
    torch.testing.assert_close(retracted(other.detach(), 0.03), other.detach() - 0.03 * gradient)


def test_singular_values_follow_their_map_and_rotations_do_not_matter():
    weight = torch.diag(torch.tensor([2.0, 0.5], dtype=torch.float64))
    torch.testing.assert_close(retracted(weight, 0.004).diag(), torch.tensor([1.976, 0.5015], dtype=torch.float64))
    weight = torch.randn(4, 6, dtype=torch.float64)
    left, right = (torch.linalg.qr(torch.randn(n, n, dtype=torch.float64)).Q for n in (4, 6))
    torch.testing.assert_close(retracted(left @ weight @ right, 0.05), left @ retracted(weight, 0.05) @ right)
    orthonormal = torch.linalg.qr(torch.randn(6, 4, dtype=torch.float64)).Q.T
    torch.testing.assert_close(retracted(orthonormal, 0.05), orthonormal)


def test_the_distance_to_1_halves_in_86_steps():
    weight = torch.diag(torch.tensor([1.001, 0.999], dtype=torch.float64))
    distance = (retracted(weight, 0.004, times=86).diag() - 1).abs()
    assert (distance / 0.001).tolist() == pytest.approx([0.5, 0.5], abs=0.005)


def test_only_some_rows_of_a_large_linear_layer_change():
    layer, small = nn.Linear(3, 4096), nn.Linear(3, 10)
    callback = OrthogonalRetraction()
    rows = callback.rows(layer, (1, 2, 3))
    assert len(set(rows.tolist())) == 1228 == int(0.3 * 4096)
    assert torch.equal(rows, callback.rows(layer, (1, 2, 3)))
    assert not torch.equal(rows, callback.rows(layer, (1, 3, 3)))
    assert callback.rows(small, (1, 2, 3)) is None
    assert callback.rows(nn.Conv2d(1, 300, 1), (1, 2, 3)) is None
    before = layer.weight.detach().clone()
    retract(layer.weight, 0.1, rows)
    changed = (layer.weight != before).any(1)
    assert torch.equal(changed.nonzero().flatten(), rows.sort().values)


@pytest.mark.parametrize(
    ("vector", "projection"), [([0.9, 0.5], [0.7, 0.3]), ([2, 0], [1, 0]), ([1.5, -1], [1, 0]), ([0.3, 0.7], [0.3, 0.7])]
)
def test_simplex_by_hand(vector, projection):
    assert simplex_projection(torch.tensor(vector, dtype=torch.float64)).tolist() == pytest.approx(projection)


def test_the_simplex_projection_is_the_nearest_point():
    torch.manual_seed(0)
    for vector in torch.randn(20, 5, dtype=torch.float64):
        point = simplex_projection(vector)
        assert point.min() >= 0
        assert point.sum().item() == pytest.approx(1)
        others = torch.distributions.Dirichlet(torch.ones(5, dtype=torch.float64)).sample((500,))
        assert ((others - vector).norm(dim=1) >= (point - vector).norm() - 1e-12).all()
        torch.testing.assert_close(simplex_projection(point), point)


def fit(callbacks, trainer_options, network=None, data=None, **trainer):
    torch.manual_seed(1)
    classifier = SpikingClassifier(network or TinyNetwork(), weight_decay=0.0)
    options = trainer_options | {"max_epochs": 1, "limit_val_batches": 0, "callbacks": callbacks} | trainer
    Trainer(**options).fit(classifier, datamodule=data or TinyDataModule(batch_size=4))
    return classifier


class Counting(OrthogonalRetraction):
    def __init__(self):
        super().__init__()
        self.keys = []

    def change(self, network, key, scale):
        self.keys.append(key)
        super().change(network, key, scale)


def test_it_runs_after_real_steps_only(trainer_options):
    counting = Counting()
    fit([counting], trainer_options, accumulate_grad_batches=3)
    assert counting.keys == [(3407, step) for step in range(3)], "nine batches are three steps"
    assert not counting._hooks


def test_a_step_that_a_scaler_skips_is_none():
    module, counting = nn.Linear(2, 2), []
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    optimizer.register_step_post_hook(lambda *_: counting.append(1))
    scaler = torch.amp.GradScaler("cpu")
    for number in (float("inf"), 1.0):
        optimizer.zero_grad()
        scaler.scale(module(torch.ones(1, 2)).sum() * number).backward()
        scaler.step(optimizer)
        scaler.update()
    assert len(counting) == 1


def test_a_step_that_a_fused_optimiser_skips_changes_nothing():
    network, callback = TinyNetwork(), OrthogonalRetraction()
    before = [parameter.clone() for parameter in network.parameters()]
    callback.change(network, (0, 0), 1.0 - torch.tensor(1.0))
    assert all(map(torch.equal, before, network.parameters()))
    callback.change(network, (0, 0), 1.0)
    assert not torch.equal(before[0], network.conv1.weight)


def test_the_learning_rate_does_not_scale_it(trainer_options):
    torch.manual_seed(1)
    start = TinyNetwork()
    classifier = SpikingClassifier(start, lr=1e-30, weight_decay=0.0)
    expected = {name: value.clone() for name, value in start.state_dict().items()}
    Trainer(**trainer_options, max_epochs=1, limit_val_batches=0, callbacks=[OrthogonalRetraction()]).fit(
        classifier, datamodule=TinyDataModule(batch_size=4)
    )
    for name in ("conv1.weight", "conv2.weight", "fc.weight"):
        torch.testing.assert_close(classifier.network.state_dict()[name], retracted(expected[name], 0.004, times=9), rtol=1e-5, atol=1e-7)


def test_coefficients_come_to_the_simplex(trainer_options):
    def sums(callbacks):
        network = WideResNet(10, 1, num_classes=4)
        for block in (network.block1, network.block2, network.block3):
            block[0].mix.data = torch.tensor([0.9, 0.5])
        fit(callbacks, trainer_options, network, TinyDataModule(batch_size=18, encoder=DirectEncoder(2)))
        return [block[0].mix.sum().item() for block in (network.block1, network.block2, network.block3)]

    assert sums([]) == pytest.approx([1.4] * 3, abs=0.01)
    assert sums([SimplexProjection()]) == pytest.approx([1.0] * 3)
    with pytest.raises(InputError, match="convex"):
        fit([SimplexProjection()], trainer_options)


@pytest.mark.parametrize("beta", [0.0, 0.5, -1.0, float("nan"), True])
def test_beta_has_a_range(beta):
    with pytest.raises(InputError, match="beta"):
        OrthogonalRetraction(beta=beta)

"""BatchNorm over all processes; with several of them, see tests/test_ddp.py."""

from types import SimpleNamespace

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.strategies import FSDPStrategy
from spikingjelly.activation_based import layer
from torch import nn

from snn_sparsity.classifier import SpikingClassifier
from snn_sparsity.measure.operations import operations
from snn_sparsity.networks import SEWResNet
from snn_sparsity.networks.sync_batch_norm import SyncBatchNorm2d, desynchronise, each_by_itself, synchronise
from snn_sparsity.probes import GradientSparsity
from snn_sparsity.training.sync_batchnorm import MultiStepSyncBatchNorm
from snn_sparsity.validation import InputError
from tests.processes import free_port
from tests.tiny import TinyDataModule, TinyNetwork


@pytest.fixture
def one_process():
    """A process group of this process alone: everything is exchanged, with nobody."""
    store = f"tcp://127.0.0.1:{free_port()}"
    torch.distributed.init_process_group("gloo", init_method=store, world_size=1, rank=0)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("step_mode", ["m", "s"])
def test_alone_it_is_batch_norm(momentum, affine, step_mode):
    torch.manual_seed(0)
    plain, synchronised = (layer.BatchNorm2d(5, momentum=momentum, affine=affine, step_mode=step_mode).double() for _ in range(2))
    network = nn.Sequential(synchronised)
    synchronise(network)
    shape = (4, 3, 5, 6, 7) if step_mode == "m" else (3, 5, 6, 7)
    for _ in range(3):
        x = (3 + 2 * torch.randn(shape, dtype=torch.float64)).requires_grad_()
        x_too = x.detach().clone().requires_grad_()
        weights = torch.randn(shape, dtype=torch.float64)
        expected, found = plain(x), network(x_too)
        torch.testing.assert_close(found, expected)
        (expected * weights).sum().backward()
        (found * weights).sum().backward()
        torch.testing.assert_close(x_too.grad, x.grad)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(network.state_dict()[f"0.{name}"], value)
    for parameter, other in zip(plain.parameters(), synchronised.parameters(), strict=True):
        torch.testing.assert_close(other.grad, parameter.grad)


def test_names_and_operations_stay():
    network = SEWResNet()
    names, listed = list(network.state_dict()), [operation.tag for operation in operations(network)]
    parameters, kinds = list(network.parameters()), [type(module) for module in network.modules()]
    synchronise(network)
    assert sum(isinstance(module, SyncBatchNorm2d) for module in network.modules()) == 20
    assert (list(network.state_dict()), [operation.tag for operation in operations(network)]) == (names, listed)
    # What an optimiser holds is still what is trained.
    assert all(one is other for one, other in zip(network.parameters(), parameters, strict=True))
    desynchronise(network)
    assert [type(module) for module in network.modules()] == kinds
    assert all(one is other for one, other in zip(network.parameters(), parameters, strict=True))


@pytest.mark.usefixtures("one_process")
def test_what_a_probe_sees_is_its_own_batch(monkeypatch):
    network = TinyNetwork().train()
    synchronise(network)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: pytest.fail("spoke to other processes"))
    with each_by_itself(network):
        network(torch.ones(2, 3, 3, 32, 32))
    network.eval()(torch.ones(2, 3, 3, 32, 32))
    with pytest.raises(pytest.fail.Exception):
        network.train()(torch.ones(2, 3, 3, 32, 32))


def test_another_batch_norm_is_refused_by_name():
    network = TinyNetwork()
    network.bn2 = nn.BatchNorm2d(16)
    kinds = [type(module) for module in network.modules()]
    with pytest.raises(InputError, match=r"sync_batchnorm=true is not allowed with this network: bn2 is a BatchNorm2d"):
        MultiStepSyncBatchNorm().apply(network)
    assert [type(module) for module in network.modules()] == kinds


def test_lightning_s_own_conversion_is_refused(trainer_options):
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(TinyNetwork())
    with pytest.raises(InputError, match=r"plugins=\[MultiStepSyncBatchNorm\(\)\]"):
        Trainer(**trainer_options).fit(SpikingClassifier(converted), datamodule=TinyDataModule())


def test_probes_refuse_a_part_of_a_network(classifier):
    trainer = SimpleNamespace(strategy=FSDPStrategy(), precision="32-true")
    with pytest.raises(InputError, match=r"trainer.strategy: FSDPStrategy .* give ddp"):
        GradientSparsity().setup(trainer, classifier, "fit")

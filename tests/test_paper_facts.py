"""What the paper says of its zeros, checked on small networks: geometry, averages, BatchNorm in batch mode, the surrogate's hook."""

import math

import pytest
import torch
import torch.nn.functional as F
from lightning import Trainer
from spikingjelly.activation_based import functional, neuron, surrogate

from snn_sparsity.classifier import SpikingClassifier
from snn_sparsity.gradient_rules import PoolGradient
from snn_sparsity.gradient_rules.base import replaced
from snn_sparsity.measure.surrogates import record_surrogates
from snn_sparsity.networks import IFNeuron, SEWResNet, SpikingResNet
from snn_sparsity.probes import GradientSparsity
from tests.tiny import TinyDataModule, TinyNetwork

KINDS = ("conv", "bn", "neuron", "surrogate", "pool", "linear")


@pytest.fixture(scope="module")
def warm():
    """SEW-ResNet18 with max and with average pooling, their BatchNorms warmed up so that neurons fire."""
    networks = {}
    data = TinyDataModule(batch_size=8, test_images=8, validation="test")
    data.setup("fit")
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    for pool in ("max", "avg"):
        torch.manual_seed(0)
        classifier = SpikingClassifier(SEWResNet(num_classes=4, pool=pool)).train()
        with torch.no_grad():
            for _ in range(3):
                classifier(batch.spikes)
        networks[pool] = classifier.eval()
    return networks


def measured(classifier, tmp_path, **settings):
    data = TinyDataModule(test_images=8, eval_batch_size=8, validation="test")
    trainer = Trainer(
        default_root_dir=str(tmp_path), logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        accelerator="cpu", callbacks=[GradientSparsity(kinds=KINDS, **settings)],
    )  # fmt: skip
    return trainer.validate(classifier, datamodule=data, verbose=False)[0]


@pytest.mark.parametrize("batch_norm", ["eval", "batch"])
def test_where_the_papers_zeros_are_and_are_not(warm, tmp_path, batch_norm):
    suffix = "_batchnorm_batch" if batch_norm == "batch" else ""
    values = {pool: measured(network, tmp_path, batch_norm=batch_norm) for pool, network in warm.items()}

    def zeros(pool, tag):
        return values[pool][f"grad_zero{suffix}/{tag}"]

    # A 3x3 pool of stride 2 from 16x16 to 8x8 lets gradient through to 64 of 256 positions at most.
    assert zeros("max", "pool/04_maxpool") >= 0.75
    assert zeros("max", "pool/62_avgpool") == 0
    assert zeros("avg", "pool/04_maxpool") == zeros("avg", "pool/62_avgpool") == 0
    # Half of that and of nothing is the paper's 37.88: no one's number, and never logged.
    assert 37.5 <= 100 * (zeros("max", "pool/04_maxpool") + zeros("max", "pool/62_avgpool")) / 2 < 45
    assert not [name for name in values["max"] if name.startswith(f"grad_zero_mean{suffix}/pool")]
    # The stem's BatchNorm hands the sums of its batch to every position.
    assert (zeros("max", "bn/02_bn1") > 0.5) == (batch_norm == "eval")
    if batch_norm == "batch":
        assert zeros("max", "bn/02_bn1") == zeros("avg", "bn/02_bn1") == 0
    # The surrogate passes on what the pool's input got; the neuron's own input gathers later steps.
    assert zeros("max", "surrogate/03_sn1") == pytest.approx(zeros("max", "pool/04_maxpool"), abs=1e-6)
    assert zeros("max", "neuron/03_sn1") < zeros("max", "surrogate/03_sn1")
    assert zeros("avg", "surrogate/03_sn1") == 0
    # Three shortcuts of stride 2 in twenty convolutions read a quarter of their positions, whatever pools.
    for pool in values:
        assert values[pool][f"grad_zero_mean{suffix}/conv"] == pytest.approx(3 * 0.75 / 20, abs=0.001)
        assert zeros(pool, "input/00_input") < 0.01


def test_zeros_follow_the_backward_pass_not_the_forward_one(warm, tmp_path):
    for pool, share, low, high in (("avg", "first", 0.75, 1.0), ("max", "ties", 0.0, 0.4), ("max", "uniform", 0.0, 0.0)):
        with PoolGradient(share).applied(warm[pool].network):
            values = measured(warm[pool], tmp_path)
        assert low <= values["grad_zero/pool/04_maxpool"] <= high


@pytest.mark.parametrize("detach", [True, False])
def test_the_surrogates_gradient_by_hand(detach):
    """Two neurons, three steps, integrate and fire, reset to 0, ATan with alpha 2: d p/d u[t] through the spike of step t alone."""
    weights, currents = torch.tensor([[1.0, 0.0], [0.0, 0.0], [2.0, 0.0]]), torch.tensor([[0.75, 0.5], [0.75, 0.5], [0.25, 0.25]])
    node = IFNeuron(detach_reset=detach).build()
    node.step_mode = "m"
    x = currents.clone().requires_grad_()
    with record_surrogates(node) as (record,):
        # [T,N,F] with one neuron a sample.
        (weights.unsqueeze(-1) * node(x.unsqueeze(-1))).sum().backward()

    def slope(u):
        return 1 / (1 + (math.pi * u) ** 2)

    # Neuron 0: u = 0.75, 1.5 (fires, reset), 0.25. Its second spike counts only through the reset: -u[1] of step 2's slope, if attached.
    last, reset = 2 * slope(-0.75), 0.0
    if not detach:
        reset = last * -1.5 * slope(0.5)
    first = slope(-0.25) * (1.0 + (0.0 if detach else -0.75 * reset))
    norm = math.sqrt(first**2 + reset**2 + last**2)
    zeros, norms = record.values
    assert zeros.tolist() == [pytest.approx(1 / 3 if detach else 0), 1.0]
    assert norms.tolist() == [pytest.approx(norm, rel=1e-5), 0.0]


@pytest.mark.parametrize("node", [neuron.PSN(T=2), neuron.SlidingPSN(k=2, step_mode="m")], ids=["PSN", "SlidingPSN"])
def test_a_surrogate_that_is_asked_once_for_all_steps(node):
    node.requires_grad_(False)
    node.bias.fill_(-0.5)
    # Both are u[t] = x[t] + x[t-1] - 0.5.
    node.weight.copy_(torch.tensor([[1.0, 0.0], [1.0, 1.0]]) if isinstance(node, neuron.PSN) else torch.tensor([1.0, 1.0]))
    x = torch.tensor([[0.25, 0.5], [0.5, 0.5]]).unsqueeze(-1).requires_grad_()
    weights = torch.tensor([[1.0, 0.0], [2.0, 3.0]])
    with record_surrogates(node) as (record,):
        (weights.unsqueeze(-1) * node(x)).sum().backward()

    def slope(u):
        return 1 / (1 + (math.pi * u) ** 2)

    # u is -0.25, 0.25 and 0, 0.5.
    zeros, norms = record.values
    assert zeros.tolist() == [0, 0.5]
    assert norms.tolist() == pytest.approx([math.hypot(slope(-0.25), 2 * slope(0.25)), 3 * slope(0.5)], rel=1e-5)


@pytest.mark.parametrize("network", [TinyNetwork, lambda: SpikingResNet(depth=18, num_classes=4)])
def test_recording_moves_no_logit_and_leaves_nothing_behind(network):
    torch.manual_seed(0)
    network = network().eval()
    spikes = torch.randint(0, 2, (3, 2, 3, 32, 32)).float().requires_grad_()
    functional.reset_net(network)
    plain = network(spikes)
    (gradient,) = torch.autograd.grad(plain.sum(), spikes)
    before = {name: (sorted(vars(module)), type(module)) for name, module in network.named_modules()}
    functional.reset_net(network)
    with record_surrogates(network) as records:
        under = network(spikes)
        (same,) = torch.autograd.grad(under.sum(), spikes)
    assert torch.equal(plain, under)
    torch.testing.assert_close(gradient, same)
    assert {name: (sorted(vars(module)), type(module)) for name, module in network.named_modules()} == before
    assert all(record.values is not None for record in records)


def test_the_surrogates_record_equals_a_hook_on_a_surrogate_module():
    class Own(surrogate.ATan):
        """SpikingJelly calls it, as it is no class that it has a kernel for."""

        def forward(self, u):
            seen.append(u)
            u.retain_grad()
            return super().forward(u)

    seen = []
    torch.manual_seed(0)
    network = TinyNetwork().eval()
    spikes = torch.randint(0, 2, (3, 2, 3, 32, 32)).float().requires_grad_()
    with record_surrogates(network) as (record, _):
        F.cross_entropy(network(spikes).mean(0), torch.tensor([0, 1]), reduction="sum").backward()
    functional.reset_net(network)
    with replaced(network.sn1, "surrogate_function", Own(alpha=2.0)):
        F.cross_entropy(network(spikes).mean(0), torch.tensor([0, 1]), reduction="sum").backward()
    expected = torch.stack([u.grad for u in seen]).transpose(0, 1).flatten(1)
    torch.testing.assert_close(record.values[0], (expected == 0).float().mean(1))
    torch.testing.assert_close(record.values[1], expected.norm(dim=1))
    torch.testing.assert_close(record.tiny, (expected.abs() <= 1e-30).float().mean(1))

"""The probes of the paper's sections 4.3 and 5, against slow twins."""

import gc
import math

import pytest
import torch
import torch.nn.functional as F
from lightning import Trainer
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import nn
from torch.nn import utils
from torch.nn.utils import parametrizations, prune

from snn_sparsity.attacks.base import input_gradient
from snn_sparsity.batch import SpikeBatch
from snn_sparsity.classifier import SpikingClassifier
from snn_sparsity.distributed import Meeting
from snn_sparsity.encoders import PhaseEncoder
from snn_sparsity.measure.names import CAUSES
from snn_sparsity.measure.saturation import membrane_distance, vanishing_degree
from snn_sparsity.measure.windows import positions_read
from snn_sparsity.networks import VGG, LeakyNeuron, SEWResNet
from snn_sparsity.networks.layers import use_spike_layers
from snn_sparsity.networks.leaky import AREAS, SLOPES, LeakyNode
from snn_sparsity.probes import (
    GradientSparsity,
    GradientTrail,
    ProbeContext,
    SparsityOrigin,
    SurrogateSaturation,
    SynapticOperations,
    VulnerabilityRatio,
)
from snn_sparsity.probes.gradient_trail import weight_shares
from snn_sparsity.probes.synaptic_operations import fan_out
from snn_sparsity.validation import InputError
from tests.tiny import TinyDataModule, TinyNetwork, colourful


def context(classifier, *partners):
    return ProbeContext(classifier.eval(), PhaseEncoder(), torch.Generator().manual_seed(0), 0, partners, Meeting(), 0)


def batch(count=6, classes=4):
    data = colourful(count, classes, seed=3)
    return SpikeBatch(PhaseEncoder()(data.images), data.labels, data.images)


def measure(probe, classifier, images=None):
    return probe.measure(context(classifier, probe), images or batch())


@pytest.fixture
def trained(trainer_options):
    torch.manual_seed(0)
    classifier = SpikingClassifier(TinyNetwork())
    Trainer(max_epochs=2, **trainer_options).fit(classifier, datamodule=TinyDataModule())
    return classifier


# Origin of zeros -------------------------------------------------------------------------------------------------------------


class Gate(nn.Module):
    """A linear network whose gradient at the convolution's input is known entry by entry."""

    num_classes = 2

    def __init__(self, stride=1, pool=None, dead_channel=False):
        super().__init__()
        self.conv = layer.Conv2d(2, 2, 1, stride=stride, bias=False, step_mode="m")
        self.pool = pool if pool is not None else nn.Identity()
        with torch.no_grad():
            self.conv.weight.copy_(torch.eye(2)[..., None, None])
            if dead_channel:
                self.conv.weight[:, 0] = 0

    def forward(self, x):
        value = self.pool(self.conv(x)).flatten(3).mean(-1)
        return torch.stack([value.sum(-1), torch.zeros_like(value.sum(-1))], -1)


def origin(network, spikes, labels):
    classifier = SpikingClassifier(network)
    probe = SparsityOrigin()
    values = probe.measure(context(classifier, probe), SpikeBatch(spikes, labels, torch.zeros(len(labels), 2, 4, 4, dtype=torch.uint8)))
    return {cause: values[f"zero_origin/{cause}/conv/01_conv"].tolist() for cause in CAUSES}


def test_positions_a_stride_never_reads():
    shares = origin(Gate(stride=2), torch.rand(3, 1, 2, 4, 4), torch.tensor([0]))
    assert shares == {"sample": [0], "time_step": [0], "channel": [0], "unread": [0.75], "unselected": [0], "rest": [0]}


def test_dead_channels_come_before_strides():
    shares = origin(Gate(stride=2, dead_channel=True), torch.rand(3, 1, 2, 4, 4), torch.tensor([0]))
    # Half the channels are dead; of the other half, three quarters are never read.
    assert shares == {"sample": [0], "time_step": [0], "channel": [0.5], "unread": [0.375], "unselected": [0], "rest": [0]}


def test_saturated_samples():
    # Logits of +-1000: the softmax is exact, and so is its zero gradient.
    spikes = torch.stack([torch.full((3, 2, 4, 4), 1000.0), torch.rand(3, 2, 4, 4)], dim=1)
    shares = origin(Gate(), spikes, torch.tensor([0, 0]))
    assert shares["sample"] == [1.0, 0.0]
    assert sum(share[1] for share in shares.values()) == 0.0


def test_time_steps():
    class Late(Gate):
        def forward(self, x):
            return super().forward(x) * torch.tensor([0.0, 1.0, 0.0, 1.0])[:, None, None]

    assert origin(Late(), torch.rand(4, 1, 2, 4, 4), torch.tensor([0]))["time_step"] == [0.5]


def test_positions_max_pooling_does_not_select():
    pool = layer.MaxPool2d(2, 2, step_mode="m")
    network = Gate(pool=pool)
    classifier, probe = SpikingClassifier(network), SparsityOrigin()
    spikes = torch.rand(3, 2, 2, 4, 4)
    values = probe.measure(context(classifier, probe), SpikeBatch(spikes, torch.tensor([0, 1]), torch.zeros(2, 2, 4, 4, dtype=torch.uint8)))
    assert values["zero_origin/unselected/pool/02_pool"].tolist() == [0.75, 0.75]
    # No ties among uniform numbers: sharing changes nothing.
    assert values["pool_tie_shared_zero/02_pool"].tolist() == [0.75, 0.75]
    assert values["pool_windows/several/02_pool"].tolist() == [1.0, 1.0]


def test_causes_add_up_to_the_zeros(trained):
    for classifier in (trained, SpikingClassifier(SEWResNet(num_classes=4))):
        probe, zeros = SparsityOrigin(), GradientSparsity()
        images = batch(3)
        together = zeros.measure(context(classifier, probe, zeros), images) | probe.measure(context(classifier, probe, zeros), images)
        for name, value in together.items():
            if name.startswith("grad_zero/"):
                parts = [together[name.replace("grad_zero", f"zero_origin/{cause}")] for cause in CAUSES]
                torch.testing.assert_close(torch.stack(parts).sum(0), value)
                assert min(part.min() for part in parts) >= 0


def test_the_pool_explains_the_zeros_of_neuron_and_batch_norm_before_it():
    # The slow way: swap the pooling for one that shares ties, and see which zeros go.
    torch.manual_seed(0)
    classifier = SpikingClassifier(SEWResNet(num_classes=4)).train()
    images = batch(4)
    with torch.no_grad():
        classifier(images.spikes)
    values = measure(SparsityOrigin(), classifier, images)
    for operation in ("pool/04_maxpool", "neuron/03_sn1", "bn/02_bn1"):
        unselected, rest = (values[f"zero_origin/{cause}/{operation}"].mean().item() for cause in ("unselected", "rest"))
        assert unselected > 0.5
        assert rest < 0.02
    assert values["zero_origin/unselected/pool/04_maxpool"].mean() > 0.6
    assert values["pool_tie_shared_zero/04_maxpool"].mean() < 0.2
    windows = sum(values[f"pool_windows/{count}/04_maxpool"] for count in ("none", "one", "several"))
    torch.testing.assert_close(windows, torch.ones(4))


CHECKERBOARD = (torch.arange(4)[:, None] + torch.arange(4)).remainder(2).float().view(1, 1, 1, 4, 4)


def origins_of(network, spikes):
    values = measure(SparsityOrigin(), SpikingClassifier(network), SpikeBatch(spikes, torch.tensor([0]), torch.zeros(1)))
    return {name.removeprefix("zero_origin/"): value.item() for name, value in values.items()}


class Branches(nn.Module):
    """A neuron before a pooling beside a BatchNorm before a ReLU, of equal shapes."""

    num_classes = 2

    def __init__(self, batch_norm_first):
        super().__init__()
        self.batch_norm_first = batch_norm_first
        self.neuron, self.pool = neuron.IFNode(v_threshold=0.5, step_mode="m"), layer.MaxPool2d(2, step_mode="m")
        self.norm, self.relu = layer.BatchNorm2d(1, step_mode="m"), nn.ReLU()

    def forward(self, x):
        if self.batch_norm_first:
            beside = self.relu(self.norm(x - 0.5))
            spikes = self.neuron(x)
        else:
            spikes = self.neuron(x)
            beside = self.relu(self.norm(x - 0.5))
        value = self.pool(spikes).flatten(2).sum(-1) + beside.flatten(2).sum(-1)
        return torch.stack([value, torch.zeros_like(value)], -1)


@pytest.mark.parametrize("batch_norm_first", [False, True])
def test_what_a_pool_selects_is_put_down_to_what_it_reads(batch_norm_first):
    shares = origins_of(Branches(batch_norm_first), CHECKERBOARD)
    # Of each window of the pool one input of four wins; half of what the ReLU gets is negative.
    assert (shares["unselected/neuron/01_neuron"], shares["rest/neuron/01_neuron"]) == (0.75, 0.0)
    assert (shares["unselected/bn/03_norm"], shares["rest/bn/03_norm"]) == (0.0, 0.5)


@pytest.mark.parametrize(
    "between",
    [nn.ReLU(), nn.ReLU(inplace=True), nn.Sequential(nn.GELU(), nn.Flatten(0, 1), nn.Unflatten(0, (1, 1))), nn.Dropout(0.5)],
    ids=repr,
)
def test_elementwise_functions_hand_on_what_a_pool_selects(between):
    network = nn.Sequential(layer.BatchNorm2d(1, step_mode="m"), between, layer.MaxPool2d(2, step_mode="m"), nn.Flatten(2))
    network.num_classes = 4
    shares = origins_of(network, CHECKERBOARD + 1)
    assert (shares["unselected/bn/01_0"], shares["rest/bn/01_0"]) == (0.75, 0.0)


def test_a_position_that_something_else_reads_is_not_put_down_to_the_pool():
    class Two(nn.Module):
        num_classes = 4

        def __init__(self, other):
            super().__init__()
            self.neuron, self.pool, self.other = neuron.IFNode(step_mode="m"), layer.MaxPool2d(2, step_mode="m"), other

        def forward(self, x):
            spikes = self.neuron(x)
            return self.pool(spikes).flatten(2) + self.other(spikes).flatten(2)

    silent = layer.Conv2d(1, 1, 2, stride=2, bias=False, step_mode="m")
    nn.init.zeros_(silent.weight)
    for other, expected in ((silent, (0.0, 0.75)), (layer.MaxPool2d(2, step_mode="m"), (0.75, 0.0))):
        shares = origins_of(Two(other), CHECKERBOARD)
        assert (shares["unselected/neuron/01_neuron"], shares["rest/neuron/01_neuron"]) == expected


def test_the_graph_of_a_pass_is_let_go():
    classifier, alive = SpikingClassifier(TinyNetwork()), []
    for _ in range(3):
        measure(SparsityOrigin(), classifier)
        gc.collect()
        alive.append(sum(type(found) is torch.Tensor for found in gc.get_objects()))
    # Tensors of earlier tests may go meanwhile.
    assert alive[2] <= alive[0]


@pytest.mark.parametrize(("size", "unselected"), [(4, 12 / 16), (5, 16 / 25)])
def test_a_pool_in_ceil_mode(size, unselected):
    pool = layer.MaxPool2d(2, ceil_mode=True, step_mode="m")
    images = SpikeBatch(torch.rand(2, 1, 2, size, size), torch.tensor([0]), torch.zeros(1))
    values = measure(SparsityOrigin(), SpikingClassifier(Gate(pool=pool)), images)
    # No ties, all positive: each window has one winner, and several inputs but for the corner of an odd map.
    for name in ("zero_origin/unselected/pool/02_pool", "pool_tie_shared_zero/02_pool"):
        assert values[name].item() == pytest.approx(unselected), name
    assert values["zero_origin/unread/pool/02_pool"].item() == 0
    assert values["pool_windows/several/02_pool"].item() == pytest.approx(1 if size == 4 else 8 / 9)


def test_windows_of_unknown_shape_are_left_out():
    network = nn.Sequential(nn.Flatten(3), layer.SeqToANNContainer(nn.MaxPool1d(3)), nn.Flatten(2))
    network.num_classes = 10
    values = measure(SparsityOrigin(), SpikingClassifier(network), SpikeBatch(torch.rand(1, 1, 2, 4, 4), torch.tensor([0]), torch.zeros(1)))
    assert not [name for name in values if name.startswith("pool_")]
    # Five windows of three on sixteen positions; which are read is known of maps alone.
    assert values["zero_origin/rest/pool/01_1.0"].item() == pytest.approx(11 / 16)


def test_windows_of_unknown_shape_are_told(trainer_options, caplog):
    network, probe = TinyNetwork(), SparsityOrigin()
    network.maxpool = layer.MaxPool2d((3, 2), (2, 2), (1, 0), step_mode="m")
    trainer = Trainer(max_epochs=1, callbacks=[probe], **trainer_options)
    trainer.fit(SpikingClassifier(network), datamodule=TinyDataModule())
    assert "no window statistics of it are logged" in caplog.text
    assert "MaxPool2d(kernel_size=(3, 2)" in caplog.text
    assert trainer.callback_metrics["zero_origin/unselected/pool/04_maxpool"] == 0


def test_a_network_without_max_pooling_says_so(trainer_options, caplog):
    probe = SparsityOrigin()
    trainer = Trainer(max_epochs=1, callbacks=[probe], **trainer_options)
    trainer.fit(SpikingClassifier(TinyNetwork(pool="avg")), datamodule=TinyDataModule())
    assert "the network has no max pooling" in caplog.text
    assert not [name for name in trainer.callback_metrics if name.startswith("pool_")]
    assert trainer.callback_metrics["zero_origin/unselected/pool/04_maxpool"] == 0


# One pass for all ------------------------------------------------------------------------------------------------------------


def count_forwards(classifier):
    calls = []
    classifier.network.register_forward_pre_hook(lambda module, inputs: calls.append(1))
    return calls


def test_three_probes_share_a_pass(trained, trainer_options):
    probes = [GradientSparsity(), SparsityOrigin(), SurrogateSaturation()]
    data = TinyDataModule(eval_batch_size=20, validation="test")
    alone = {}
    for probe in probes:
        alone |= Trainer(callbacks=[probe], **trainer_options).validate(trained, datamodule=data, verbose=False)[0]
    calls = count_forwards(trained)
    together = Trainer(callbacks=probes, **trainer_options).validate(trained, datamodule=data, verbose=False)[0]
    # One forward of the validation step, one of the pass.
    assert len(calls) == 2
    for name, value in together.items():
        if not name.startswith("time/"):
            assert value == alone[name], name


def test_other_settings_or_images_take_a_pass_of_their_own(trained, trainer_options):
    data = TinyDataModule(eval_batch_size=20, validation="test")
    calls = count_forwards(trained)
    probes = [GradientSparsity(), SparsityOrigin(batch_norm="batch"), SurrogateSaturation(max_samples=5)]
    Trainer(callbacks=probes, **trainer_options).validate(trained, datamodule=data, verbose=False)
    assert len(calls) == 4


# Surrogate -------------------------------------------------------------------------------------------------------------------


def test_membrane_distance_against_spikingjelly():
    x = torch.randn(8, 5, 3) * 0.7
    for reset in (0.0, None):
        node = neuron.IFNode(v_reset=reset, step_mode="m", store_v_seq=True)
        spikes = node(x)
        before = torch.cat([torch.zeros(1, 5, 3), node.v_seq[:-1]])
        torch.testing.assert_close(membrane_distance(node, x), before + x - 1.0)
        assert torch.equal(spikes, (membrane_distance(node, x) >= 0).float())


def test_membrane_distance_of_neurons_that_see_all_steps_before_they_fire():
    """PSN: ``W x + b`` over time, fired where it is 0 or more; with W = 1 below and on the diagonal and b = -1 it sums up all so far."""
    parallel, x = neuron.PSN(T=3), torch.tensor([[0.5, 2.0], [0.25, -1.5], [0.5, 0.0]])[:, None]
    parallel.weight.data, parallel.bias.data = torch.ones(3, 3).tril(), torch.full((3, 1), -1.0)
    distance = membrane_distance(parallel, x)
    torch.testing.assert_close(distance, torch.tensor([[-0.5, 1.0], [-0.25, -0.5], [0.25, -0.5]])[:, None])
    assert torch.equal(parallel(x), (distance >= 0).float())
    others = (neuron.MaskedPSN(k=2, T=3, step_mode="m"), neuron.SlidingPSN(k=2, step_mode="m"), neuron.GatedLIFNode(T=3))
    for node in others:
        functional.reset_net(node)
        distance, spikes = membrane_distance(node, x), node(x).view_as(x)
        assert torch.equal(spikes, (distance >= 0).float()), type(node).__name__


@pytest.mark.parametrize("kind", [neuron.PSN, neuron.GatedLIFNode, neuron.KLIFNode, neuron.ILIFNode])
def test_the_probes_of_surrogates_in_a_fit_on_other_neurons(kind, trainer_options):
    """In one pass: a probe that hooks a neuron must not be asked about the copies that it makes of it."""
    network = TinyNetwork()
    network.sn1 = kind(T=10) if kind in (neuron.PSN, neuron.GatedLIFNode) else kind(step_mode="m")
    probes = [GradientSparsity(kinds=["neuron", "surrogate"]), *([] if kind is neuron.ILIFNode else [SurrogateSaturation()])]
    trainer = Trainer(max_epochs=1, callbacks=probes, **trainer_options)
    trainer.fit(SpikingClassifier(network), datamodule=TinyDataModule(validation="test", train_images=16))
    logged = {name for name in trainer.callback_metrics if name.endswith("sn1") and "surrogate" in name}
    assert any("vanishing" in name for name in logged) == (kind is not neuron.ILIFNode)
    assert any(name.startswith("grad_zero/surrogate") for name in logged) == (kind is not neuron.ILIFNode)


def test_membrane_distance_of_every_neuron_with_a_leak():
    x = torch.randn(6, 5, 3) * 0.9
    for node in (neuron.LIFNode(tau=2.0, decay_input=False), neuron.ParametricLIFNode(init_tau=3.0), LeakyNeuron(leak=0.5).build()):
        node.step_mode = "m"
        spikes, before = node(x), node.v.clone()
        assert torch.equal(spikes, (membrane_distance(node, x) >= 0).float())
        assert torch.equal(node.v, before), "the neuron is left as it is"
    # By hand: u = 0.75, then 0.5 * 0.75 + 0.75 = 1.125, which fires; in thresholds of 0.75 the same is 0 and 1/2.
    seen = membrane_distance(LeakyNeuron(leak=0.5).build(), torch.tensor([[0.75], [0.75], [0.5]]))
    assert seen.flatten().tolist() == [-0.25, 0.125, -0.5]
    # HIRE-SNN's fires above the threshold only: at it, it does not, and half of 0.75 is kept; the soft reset takes 0.75 away.
    relative = LeakyNeuron(threshold=0.75, leak=0.5, surrogate="linear", reset="subtract", strict=True).build()
    assert membrane_distance(relative, torch.tensor([[0.75], [0.75], [0.75]])).flatten().tolist() == pytest.approx([0, 0.5, 0.25])


@pytest.mark.parametrize("shape", SLOPES)
def test_the_area_of_every_slope_is_its_integral(shape):
    far = {"sigmoid": 60.0, "atan": 2e5}.get(shape, 30.0)
    r = torch.linspace(0, far, 4_000_001, dtype=torch.float64)
    total = torch.trapezoid(SLOPES[shape](r), r)
    for end in (0.3, 0.5, 1.0, 2.0):
        near = torch.linspace(0, end, 200_001, dtype=torch.float64)
        within = torch.trapezoid(SLOPES[shape](near), near) / total
        assert AREAS[shape](torch.tensor(end)).item() == pytest.approx(within.item(), abs=1e-4), end


@pytest.mark.parametrize("name", ["poisson_vgg5", "hire_vgg11"])
def test_saturation_reads_the_defences_neurons(name):
    torch.manual_seed(0)
    of = {"poisson_vgg5": {"leak": 0.99, "delayed": True}, "hire_vgg11": {"learnt": ["threshold", "leak"]}}
    recipe = LeakyNeuron(surrogate="linear", reset="subtract", detach_reset=True, strict=True, **of[name])
    network = VGG(channels=[4, "A", 8, "A"], hidden=16, num_classes=3, neurons=recipe)
    classifier = SpikingClassifier(network)
    probe = SurrogateSaturation()
    spikes = torch.rand(4, 2, 3, 32, 32)
    values = probe.measure(context(classifier, probe), SpikeBatch(spikes, torch.tensor([0, 1]), torch.zeros(2)))
    layers = [name for name, module in network.named_modules() if isinstance(module, LeakyNode)]
    assert len(values) == 6 * len(layers) > 0
    assert all(value.isfinite().all() for value in values.values())
    assert all(((value >= 0) & (value <= 1)).all() for key, value in values.items() if "distance" not in key)


def test_saturation_by_hand():
    network = nn.Sequential(nn.Flatten(2), neuron.IFNode(surrogate_function=surrogate.ATan(alpha=2.0), step_mode="m"))
    network.num_classes = 2
    classifier = SpikingClassifier(network)
    # Two neurons, two steps: one silent at u = 0.25, 0.5; one that fires at u = 1, 1.
    spikes = torch.tensor([[[0.25, 1.0]], [[0.25, 1.0]]])
    probe = SurrogateSaturation()
    values = probe.measure(context(classifier, probe), SpikeBatch(spikes[..., None], torch.tensor([0]), torch.zeros(1)))
    value = {name.split("/")[0].removeprefix("surrogate_"): number.item() for name, number in values.items()}
    assert value["distance"] == pytest.approx((0.75 + 0.5) / 4)
    assert value["vanishing"] == pytest.approx(sum(2 / math.pi * math.atan(math.pi * d) for d in (0.75, 0.5, 0, 0)) / 4)
    assert (value["firing_rate"], value["silent"], value["always"], value["unseen"]) == (0.5, 0.5, 0.5, 0.0)


class OneStep(nn.Module):
    """A neuron that sees the one step there is, as [1,N,...] or as [N,...]."""

    num_classes = 2

    def __init__(self, step_mode):
        super().__init__()
        self.node = neuron.IFNode(step_mode=step_mode)

    def forward(self, x):
        x = x.flatten(2)
        return self.node(x) if self.node.step_mode == "m" else self.node(x[0]).unsqueeze(0)


@pytest.mark.parametrize("count", [2, 3], ids=["as many images as neurons", "other numbers"])
@pytest.mark.parametrize("step_mode", ["s", "m"])
def test_a_neuron_in_single_step_mode_sees_images_and_no_time(step_mode, count):
    spikes = torch.tensor([[0.25, 1.0], [0.5, 0.5], [2.0, 1.0]])[None, :count, :, None, None]
    images = SpikeBatch(spikes, torch.zeros(count, dtype=torch.long), torch.zeros(count))
    values = measure(SurrogateSaturation(), SpikingClassifier(OneStep(step_mode)), images)
    by_hand = {"distance": [0.375, 0.5, 0.5], "firing_rate": [0.5, 0.0, 1.0], "silent": [0.5, 1.0, 0.0], "always": [0.5, 0.0, 1.0]}
    for what, expected in by_hand.items():
        assert values[f"surrogate_{what}/01_node"].tolist() == expected[:count], what


def every_surrogate():
    """SpikingJelly's, found by walking its module, with their defaults; two are of area 1 with other numbers too."""
    kinds = [kind for kind in vars(surrogate).values() if isinstance(kind, type) and issubclass(kind, surrogate.SurrogateFunctionBase)]
    made = [kind(2) if kind is surrogate.MultiLevelSpikeCount else kind() for kind in kinds if kind is not surrogate.SurrogateFunctionBase]
    return [*made, surrogate.MultiLevelSpikeCount(1), surrogate.PiecewiseLeakyReLU(c=0.0)]


AREA_UNKNOWN = (
    surrogate.SuperSpike,
    surrogate.NonzeroSignLogAbs,
    surrogate.SquarewaveFourierSeries,
    surrogate.S2NN,
    surrogate.LeakyKReLU,
    surrogate.FakeNumericalGradient,
    surrogate.LogTailedReLU,
    surrogate.DeterministicPass,
    surrogate.PoissonPass,
)


@pytest.mark.parametrize("function", every_surrogate(), ids=repr)
def test_the_vanishing_degree_of_every_surrogate_is_its_integral_or_refused(function):
    distances = (0.3, 1.0, 3.0)
    wide = isinstance(function, surrogate.MultiLevelSpikeCount) and function.max_spike_count > 1
    leaks = isinstance(function, surrogate.PiecewiseLeakyReLU) and function.c != 0
    if isinstance(function, AREA_UNKNOWN) or wide or leaks:
        with pytest.raises(InputError, match=rf"the area of {type(function).__name__}'s slope is not known to be 1"):
            vanishing_degree(function, torch.tensor(distances))
        return
    degrees = vanishing_degree(function, torch.tensor(distances)).tolist()
    for distance, degree in zip(distances, degrees, strict=True):
        near = torch.linspace(-distance, distance, 20_001, dtype=torch.float64).requires_grad_()
        (slope,) = torch.autograd.grad(function(near).sum(), near)
        assert degree == pytest.approx(torch.trapezoid(slope, near.detach()).item(), abs=1e-3), distance


def test_a_surrogate_of_unknown_area_is_refused(trainer_options):
    network = TinyNetwork()
    network.sn1 = neuron.LIFNode(surrogate_function=surrogate.LeakyKReLU(), step_mode="m")
    with pytest.raises(InputError, match=r"probes.surrogate: the area of LeakyKReLU's slope is not known"):
        Trainer(callbacks=[SurrogateSaturation(name="surrogate")], **trainer_options).validate(
            SpikingClassifier(network), datamodule=TinyDataModule(), verbose=False
        )


# Theorem 1 -------------------------------------------------------------------------------------------------------------------


class Linear(nn.Module):
    """Logits (w . mean over time of x, 0): the margin is linear in the input, and Theorem 1 exact."""

    num_classes = 2

    def __init__(self, weights):
        super().__init__()
        self.weights = nn.Parameter(weights)

    def forward(self, spikes):
        value = (spikes * self.weights).flatten(2).sum(-1, keepdim=True)
        return torch.cat([value, torch.zeros_like(value)], -1)


def test_the_ratio_of_a_linear_margin():
    weights = torch.tensor([2.0, -1.0, 0.0, 0.0]).view(1, 1, 1, 2, 2)
    probe = VulnerabilityRatio(function="margin", draws=1500, eps=0.1)
    images = SpikeBatch(torch.rand(1, 2, 1, 2, 2), torch.tensor([0, 0]), torch.zeros(2, 1, 2, 2, dtype=torch.uint8))
    values = measure(probe, SpikingClassifier(Linear(weights)), images)
    # 3 (2 + 1)^2 / (2^2 + 1^2), bound 3 x 2.
    torch.testing.assert_close(values["predicted_ratio"], torch.full((2,), 27 / 5))
    assert values["upper_bound"].tolist() == [6.0, 6.0]
    torch.testing.assert_close(values["measured_ratio"], torch.full((2,), 27 / 5), rtol=0.15, atol=0)
    assert values["first_order_off"].tolist() == [0.0, 0.0]
    summary = probe.summarise(values)
    assert summary["inside_bounds"] == 1.0
    assert summary["left_out"] == 0.0


def test_predicted_ratio_keeps_its_bounds(trained):
    values = measure(VulnerabilityRatio(), trained)
    assert (values["predicted_ratio"] >= 3 * (1 - 1e-5)).all()
    assert (values["predicted_ratio"] <= values["upper_bound"] * (1 + 1e-5)).all()


def test_the_gradient_is_that_of_the_probability(trained):
    images = batch()
    values = measure(VulnerabilityRatio(), trained, images)
    x = images.spikes.clone().requires_grad_()
    probability = trained(x).softmax(1)[torch.arange(6), images.labels]
    (gradient,) = torch.autograd.grad(probability.sum(), x)
    flat = gradient.transpose(0, 1).flatten(1)
    torch.testing.assert_close(values["predicted_ratio"], 3 * flat.norm(p=1, dim=1) ** 2 / flat.norm(dim=1) ** 2, rtol=1e-3, atol=0)


def test_too_large_a_step_is_told(trained, caplog):
    probe = VulnerabilityRatio(eps=1.0)
    probe.summarise(measure(probe, trained))
    assert "too large for the first-order step" in caplog.text


def test_in_image_space_only_the_measured_ratio_exists(trained):
    values = measure(VulnerabilityRatio(space="image"), trained)
    assert values.keys() == {"measured_ratio"}
    assert "measured_ratio_median" in VulnerabilityRatio(space="image").summarise(values)


def test_images_without_gradient_are_left_out():
    probe = VulnerabilityRatio()
    images = SpikeBatch(torch.rand(1, 2, 1, 2, 2), torch.tensor([0, 0]), torch.zeros(2, 1, 2, 2, dtype=torch.uint8))
    summary = probe.summarise(measure(probe, SpikingClassifier(Linear(torch.zeros(1, 1, 1, 2, 2))), images))
    assert summary["left_out"] == 1.0
    assert math.isnan(summary["measured_ratio_median"])


# The gradient trail ----------------------------------------------------------------------------------------------------------


def test_weight_shares_by_hand():
    weight = torch.tensor([[1.0, 0.0], [1e-40, 1e-7]])
    gradient = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    reachable = torch.tensor([[True, True], [False, True]])
    shares = {name: share.item() for name, share in weight_shares(weight, gradient, reachable)}
    expected = {"gradient_zero": (3 / 4, 2 / 3), "zero": (1 / 4, 1 / 3), "denormal": (1 / 4, 0), "small": (3 / 4, 2 / 3)}
    assert shares == pytest.approx(
        {f"trail_weight_{name}": every for name, (every, _) in expected.items()}
        | {f"trail_weight_{name}_reachable": seeing for name, (_, seeing) in expected.items()}
    )


def test_trail_against_backward(trained):
    images = batch()
    values = measure(GradientTrail(), trained, images)
    trained.zero_grad()
    F.cross_entropy(trained(images.spikes), images.labels, reduction="sum").backward()
    for path, name in (("conv1", "01_conv1"), ("conv2", "05_conv2"), ("fc", "09_fc")):
        gradient = trained.network.get_submodule(path).weight.grad
        assert values[f"trail_weight_gradient_zero/{name}"].item() == pytest.approx((gradient == 0).float().mean().item())
    trained.zero_grad()
    gradient, _ = input_gradient(lambda x: trained(x.transpose(0, 1)), images.spikes.transpose(0, 1), images.labels)
    torch.testing.assert_close(values["trail_input_gradient_zero/01_conv1"].float(), (gradient == 0).flatten(1).float().mean(1))


def test_unreachable_taps_are_counted_apart():
    values = measure(GradientTrail(), SpikingClassifier(SEWResNet(num_classes=4)), batch(2))
    name = next(name for name in values if name.endswith("layer4.1.conv1") and name.startswith("trail_weight_gradient_zero/"))
    # Eight of nine taps only ever see padding: the ninth holds all gradients there are.
    reachable = values[name.replace("zero/", "zero_reachable/")].item()
    assert reachable < 1
    assert values[name].item() == pytest.approx(8 / 9 + reachable / 9)


def test_correlations_over_batches_and_epochs():
    probe = GradientTrail()
    layer_name, later = "01_a", "02_b"
    summaries = []
    for epoch in range(5):
        probe._epoch = epoch
        values = {"batch": torch.tensor([0.0, 0.0, 2.0, 2.0, 4.0, 6.0])}
        for name in (layer_name, later):
            inputs = torch.tensor([0.1, 0.3, 0.2, 0.4, 0.5, 0.9]) + 0.01 * epoch
            values |= {f"trail_input_gradient_zero/{name}": inputs, f"trail_weight_zero_reachable/{name}": torch.full((6,), 0.25)}
            values |= {f"trail_weight_gradient_zero_reachable/{name}": 0.5 * inputs}
        summaries.append(probe.summarise({name: value.double() for name, value in values.items()}))
    last = summaries[-1]
    assert last["trail_input_gradient_zero/01_a"].item() == pytest.approx(2.4 / 6 + 0.04)
    # Four batches: (0.1+0.3)/2, (0.2+0.4)/2, 0.5, 0.9 on a line with their halves.
    assert last["trail_correlation/pearson_batches_value/gradients/01_a"].item() == pytest.approx(1.0)
    assert last["trail_correlation/pearson_epochs_value/gradients/01_a"].item() == pytest.approx(1.0)
    assert math.isnan(summaries[0]["trail_correlation/pearson_epochs_value/gradients/01_a"])
    # Weights without spread: undefined, neither 0 nor 1; within an epoch they cannot have any, and nothing is offered.
    assert math.isnan(last["trail_correlation/pearson_epochs_value/weights/01_a"])
    assert not [name for name in last if "batches" in name and ("weights" in name or "partial" in name)]
    # The last layer has no later weights to hold fixed.
    assert "trail_correlation/partial_epochs_value/gradients/02_b" not in last
    assert "trail_correlation/partial_epochs_value/gradients/01_a" in last


def test_the_epochs_so_far_go_into_checkpoints():
    probe, resumed = GradientTrail(), GradientTrail()
    probe._epochs = {1: {"trail_weight_zero/01_a": 0.5}}
    resumed.load_state_dict(probe.state_dict())
    assert resumed._epochs == probe._epochs


def test_epochs_of_an_older_checkpoint_stand_before_those_of_the_fit():
    probe = GradientTrail()
    probe.load_state_dict({"epochs": [{"a": 0.1}, {"a": 0.2}]})
    assert [means["a"] for _, means in sorted((probe._epochs | {0: {"a": 0.3}}).items())] == [0.1, 0.2, 0.3]


@pytest.mark.parametrize("often", [{}, {"val_check_interval": 0.5}], ids=["once", "twice"])
def test_a_validation_is_not_an_epoch(often, trainer_options, tmp_path):
    classifier, data = SpikingClassifier(TinyNetwork()), TinyDataModule(train_images=18, batch_size=8)

    def fit(probe, epochs, **more):
        trainer = Trainer(max_epochs=epochs, callbacks=[probe], **trainer_options | often)
        trainer.fit(classifier, datamodule=data, **more)
        return trainer

    probe = GradientTrail()
    trainer = fit(probe, 2)
    seen = dict(probe._epochs)
    assert list(seen) == [0, 1]
    # The last validation of an epoch is of the weights that it ends with.
    name = "trail_weight_gradient_zero/05_conv2"
    assert seen[1][name] == pytest.approx(trainer.callback_metrics[name].item())
    trainer.save_checkpoint(tmp_path / "two.ckpt")
    trainer.validate(classifier, datamodule=data, verbose=False)
    trainer.test(classifier, datamodule=data, verbose=False)
    assert probe._epochs == seen
    resumed = GradientTrail()
    fit(resumed, 3, ckpt_path=tmp_path / "two.ckpt")
    assert list(resumed._epochs) == [0, 1, 2]
    assert {epoch: resumed._epochs[epoch] for epoch in seen} == seen
    fit(probe, 1)
    assert list(probe._epochs) == [0], "another fit has epochs of its own"


class Layers(nn.Module):
    """A convolution, a neuron and a linear layer, and whatever else it is given; spikes [T,N,3,H,W] to outputs [T,N,4]."""

    num_classes = 4

    def __init__(self, node=None, channels=3, **others):
        super().__init__()
        self.conv = layer.Conv2d(channels, 6, 3, 2, 1, bias=False)
        self.sn = node or neuron.IFNode(v_threshold=0.2)
        self.fc = layer.Linear(6, 4)
        self.others = nn.ModuleDict(others)
        functional.set_step_mode(self, "m")

    def forward(self, spikes):
        return self.fc(self.sn(self.conv(spikes)).mean((3, 4)))


def pruned(module):
    return prune.l1_unstructured(module, "weight", amount=0.5)


@pytest.mark.parametrize("change", [parametrizations.weight_norm, parametrizations.spectral_norm, pruned, utils.weight_norm])
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
def test_a_computed_weight_counts_as_it_multiplies(change):
    torch.manual_seed(0)
    network = Layers()
    change(network.conv)
    values = measure(GradientTrail(), SpikingClassifier(network))
    computed, plain = network.conv.weight.detach(), Layers()
    plain.load_state_dict({"conv.weight": computed, **network.fc.state_dict(prefix="fc.")})
    expected = measure(GradientTrail(), SpikingClassifier(plain))
    for name in values:
        torch.testing.assert_close(values[name], expected[name], msg=name)
    assert values["trail_weight_zero/01_conv"].item() == (0.5 if change is pruned else 0)


def test_frozen_layers_have_gradients_and_stay_frozen(trainer_options):
    torch.manual_seed(0)
    network = Layers()
    expected = measure(GradientTrail(), SpikingClassifier(network))
    network.conv.requires_grad_(False)
    values = measure(GradientTrail(), SpikingClassifier(network))
    assert all(torch.equal(values[name], expected[name]) for name in expected)
    network.conv.requires_grad_(False)
    trainer = Trainer(callbacks=[GradientTrail()], **trainer_options)
    trainer.validate(SpikingClassifier(network), datamodule=TinyDataModule(), verbose=False)
    assert not network.conv.weight.requires_grad
    assert network.fc.weight.requires_grad


def test_a_layer_that_takes_no_part_is_named():
    with pytest.raises(InputError, match=r"operation 'others.aux' ran 0 times"):
        measure(GradientTrail(), SpikingClassifier(Layers(aux=nn.Linear(6, 4))))


# Costs -----------------------------------------------------------------------------------------------------------------------


def test_synaptic_operations_by_hand():
    network = nn.Sequential(nn.Flatten(2), layer.Linear(4, 3, bias=False, step_mode="m"))
    network.num_classes = 3
    classifier = SpikingClassifier(network)
    spikes = torch.zeros(2, 1, 1, 2, 2)
    spikes[0, 0, 0, 0, 0] = spikes[1, 0, 0] = 1.0
    values = measure(SynapticOperations(), classifier, SpikeBatch(spikes, torch.tensor([0]), torch.zeros(1)))
    # Five spikes with three connections each.
    assert values["synops"].tolist() == [15.0]
    assert values["flops"].tolist() == [2 * 2 * 4 * 3]
    assert values["energy"].item() == pytest.approx(15 * 0.9)
    assert "firing_rate" not in values, "there is no neuron"


def test_synaptic_operations_do_not_depend_on_kernels_and_count_what_is_no_spike_too():
    """Padding is no connection: the four corners of a 3x3 map lie in four windows each, the edges in six, the centre in nine."""
    ones = {}
    for spike_layers in (False, True):
        network = nn.Sequential(layer.Conv2d(2, 5, 3, padding=1, bias=False, step_mode="m"), nn.Flatten(2))
        if spike_layers:
            use_spike_layers(network)
        network.num_classes = 45
        spikes = torch.zeros(2, 1, 2, 3, 3)
        spikes[0, 0, 0, 0, 0] = spikes[0, 0, 1, 1, 1] = 1.0
        spikes[1, 0, 1, 0, 1] = 0.25
        ones[spike_layers] = measure(
            SynapticOperations(), SpikingClassifier(network), SpikeBatch(spikes, torch.tensor([0]), torch.zeros(1))
        )
    assert ones[False] == ones[True]
    assert ones[True]["synops"].tolist() == [5 * (4 + 9 + 6)]
    assert ones[True]["energy"].item() == pytest.approx(4.6 * ones[True]["flops"].item() / 2), "a quarter is no spike"
    assert ones[True]["flops"].tolist() == [2 * 2 * 2 * 5 * (4 * 4 + 4 * 6 + 9)]


@pytest.mark.parametrize(
    ("mode", "windows"),
    [
        ("zeros", [4, 6, 6, 4, 6, 9, 9, 6, 6, 9, 9, 6, 4, 6, 6, 4]),
        # Along an axis, padded positions are in 1, 2, 3, 3, 2, 1 windows. These hold inputs 3, 0, 1, 2, 3, 0: three windows each.
        ("circular", [9] * 16),
        # Inputs 0, 0, 1, 2, 3, 3: three each.
        ("replicate", [9] * 16),
        # Inputs 1, 0, 1, 2, 3, 2: two, four, four, two.
        ("reflect", [4, 8, 8, 4, 8, 16, 16, 8, 8, 16, 16, 8, 4, 8, 8, 4]),
    ],
)
def test_padding_made_of_inputs_connects(mode, windows):
    convolution = nn.Conv2d(1, 2, 3, padding=1, padding_mode=mode)
    assert fan_out(convolution, torch.ones(1, 1, 4, 4)) == 2 * sum(windows)
    for position in range(16):
        single = F.one_hot(torch.tensor(position), 16).float().view(1, 1, 4, 4)
        assert fan_out(convolution, single) == 2 * windows[position]


def test_the_firing_rate_is_of_all_neurons_and_steps():
    linear = layer.Linear(4, 2, bias=False, step_mode="m")
    nn.init.constant_(linear.weight, 0.5)
    network = nn.Sequential(nn.Flatten(2), neuron.IFNode(step_mode="m"), linear, neuron.IFNode(step_mode="m"))
    network.num_classes = 2
    spikes = torch.zeros(2, 1, 1, 2, 2)
    spikes[0, 0, 0, 0, 0] = spikes[1, 0, 0] = 1.0
    values = measure(SynapticOperations(), SpikingClassifier(network), SpikeBatch(spikes, torch.tensor([0]), torch.zeros(1)))
    # Four neurons fire as their inputs do, 5 of 8; the two behind get 0.5, then 2: 2 of 4.
    assert values["firing_rate"].item() == pytest.approx(7 / 12)


@pytest.mark.parametrize("wrong", [{"eps": 0}, {"draws": 0}, {"function": "loss"}, {"space": "pixels"}, {"space": "image", "eps": 0.05}])
def test_bad_settings_are_refused(wrong):
    with pytest.raises(InputError, match=list(wrong)[-1]):
        VulnerabilityRatio(**wrong)


def test_a_transposed_convolution_is_named_and_skips_nothing():
    layer = nn.ConvTranspose2d(1, 1, 2, 2)
    with pytest.raises(InputError, match="the connections of ConvTranspose2d cannot be counted"):
        fan_out(layer, torch.ones(1, 1, 2, 2))
    assert positions_read(layer, (2, 2)) is None
    assert positions_read(nn.Conv1d(1, 1, 2), (2, 2)) is None


def test_the_ratio_of_images_is_of_whole_grey_levels():
    assert VulnerabilityRatio(space="image", eps=0.0314).eps == 8 / 255
    assert VulnerabilityRatio(eps=0.0314).eps == 0.0314, "of spikes it is any number"
    with pytest.raises(InputError, match="grey levels"):
        VulnerabilityRatio(space="image", eps=0.03)

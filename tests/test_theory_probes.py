"""The probes of the paper's sections 4.3 and 5, against slow twins."""

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
from snn_sparsity.measure.saturation import membrane_distance
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

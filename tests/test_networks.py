import pytest
import torch
import torchvision
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from spikingjelly.activation_based.model import sew_resnet, spiking_resnet

from snn_sparsity.networks import IFNeuron, SEWResNet, SpikingResNet
from snn_sparsity.validation import InputError


def test_if_neuron_by_hand():
    node = IFNeuron().build()
    node.step_mode = "m"
    # 0.6, then 1.2 crosses the threshold and is reset to 0, then 0.6 again.
    assert node(torch.tensor([[0.6], [0.6], [0.6]])).flatten().tolist() == [0.0, 1.0, 0.0]
    assert node.v.item() == pytest.approx(0.6)


def test_soft_reset_by_hand():
    node = IFNeuron(reset=None).build()
    node.step_mode = "m"
    assert node(torch.tensor([[0.6], [0.6], [0.6], [0.2]])).flatten().tolist() == [0.0, 1.0, 0.0, 1.0]


def test_the_paper_s_surrogate_gradient():
    node = IFNeuron().build()
    x = torch.tensor([0.3], requires_grad=True)
    (gradient,) = torch.autograd.grad(node(x).sum(), x)
    # Equation 4 with alpha = 2 at u - V_th = -0.7.
    assert gradient.item() == pytest.approx(2 / (2 * (1 + (torch.pi * 0.7) ** 2)), rel=1e-6)


@pytest.mark.parametrize(("ours", "detach"), [(SEWResNet, True), (SpikingResNet, False)])
def test_the_paper_s_neuron_is_the_default(ours, detach):
    node = ours().sn1
    assert isinstance(node, neuron.IFNode)
    assert isinstance(node.surrogate_function, surrogate.ATan)
    assert (node.v_threshold, node.v_reset, node.surrogate_function.alpha, node.detach_reset) == (1.0, 0.0, 2.0, detach)


@pytest.mark.parametrize("depth", [18, 34, 50])
@pytest.mark.parametrize("ours", [SEWResNet, SpikingResNet])
def test_state_dict_is_torchvision_s(ours, depth):
    theirs = getattr(torchvision.models, f"resnet{depth}")(num_classes=10).state_dict()
    mine = ours(depth=depth, num_classes=10).state_dict()
    assert {name: value.shape for name, value in mine.items()} == {name: value.shape for name, value in theirs.items()}


@pytest.mark.parametrize("pool", ["max", "avg"])
@pytest.mark.parametrize("ours", [SEWResNet, SpikingResNet])
def test_equal_to_spikingjelly_with_the_pool_swapped(ours, pool):
    torch.manual_seed(0)
    mine = ours(depth=18, num_classes=10, pool=pool).eval()
    node = {"spiking_neuron": neuron.IFNode, "surrogate_function": surrogate.ATan(), "detach_reset": ours is SEWResNet}
    if ours is SEWResNet:
        theirs = sew_resnet.sew_resnet18(num_classes=10, cnf="ADD", **node)
    else:
        theirs = spiking_resnet.spiking_resnet18(num_classes=10, **node)
    if pool == "avg":
        theirs.maxpool = layer.AvgPool2d(3, 2, 1)
    functional.set_step_mode(theirs, "m")
    theirs.load_state_dict(mine.state_dict())
    spikes = torch.randint(0, 2, (4, 2, 3, 32, 32)).float()
    torch.testing.assert_close(mine(spikes), theirs.eval()(spikes), rtol=1e-5, atol=1e-6)


def test_cifar_stem_keeps_the_map_large():
    network = SEWResNet(stem="cifar")
    sizes = []
    network.layer4.register_forward_hook(lambda module, inputs, output: sizes.append(tuple(output.shape[-2:])))
    network(torch.zeros(1, 1, 3, 32, 32))
    assert sizes == [(2, 2)]


def test_unreachable_taps_get_no_gradient():
    network = SEWResNet(depth=18)
    loss = network(torch.randint(0, 2, (2, 2, 3, 32, 32)).float()).sum()
    (gradient,) = torch.autograd.grad(loss, network.layer4[1].conv1.weight)
    reachable = torch.zeros(3, 3, dtype=torch.bool)
    reachable[1, 1] = True
    assert (gradient[:, :, ~reachable] == 0).all()
    assert (gradient[:, :, reachable] != 0).any()


@pytest.mark.parametrize(
    "wrong",
    [{"pool": "median"}, {"depth": 20}, {"stem": "vit"}, {"connect": "XOR"}, {"num_classes": 1}],
)
def test_bad_settings_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        SEWResNet(**wrong)


@pytest.mark.parametrize("wrong", [{"threshold": 0}, {"surrogate": "relu"}, {"alpha": -1}])
def test_bad_neurons_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        IFNeuron(**wrong)

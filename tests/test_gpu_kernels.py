"""What holds on a GPU, as far as it can be seen without one."""

import importlib
import logging
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

import snn_sparsity
from snn_sparsity.attacks.targets import PlainTarget, SpikeTarget
from snn_sparsity.classifier import SpikingClassifier
from snn_sparsity.networks import native
from snn_sparsity.networks.gpu import KERNELS, _one_layer, settle_kernels

pytest.importorskip("triton")

INTERPRETED = """
import types
from contextlib import nullcontext
import torch
import spikingjelly._ops.if_.triton as kernel
from spikingjelly.activation_based import surrogate
from snn_sparsity.networks.neurons import FusedIFNode

# The kernel as it is, past its check that the tensors lie on a GPU.
cuda = types.SimpleNamespace(device=lambda device: nullcontext())
kernel.torch = types.SimpleNamespace(empty_like=torch.empty_like, float32=torch.float32, _check=lambda *args: None, cuda=cuda)
ATAN = 1
LAYOUTS = {
    "contiguous": lambda x: x,
    "channels last": lambda x: x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, x.shape[:2]),
    "images first": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "with gaps": lambda x: x.repeat_interleave(2, -1)[..., ::2],
}
for reset, detach, threshold, alpha in ((0.0, True, 1.0, 2.0), (None, True, 0.7, 2.0), (-0.25, False, 1.0, 2.0), (0.0, True, 0.7, 5.3)):
    torch.manual_seed(1)
    shape = 2, 8, 3, 5
    x = (torch.randn(5, *shape) + 0.3).requires_grad_()
    v, g, g_v = torch.randn(shape), torch.randn(5, *shape), torch.randn(shape)
    settings = {"v_threshold": threshold, "v_reset": reset, "detach_reset": detach, "step_mode": "m"}
    node = FusedIFNode(surrogate_function=surrogate.ATan(alpha), **settings)
    node.v = first = v.clone().requires_grad_()
    spikes = node(x)
    expected = [spikes, node.v, *torch.autograd.grad([spikes, node.v], [x, first], [g, g_v])]
    apart = []
    for arrange in LAYOUTS.values():
        fired, last, charged = kernel._forward_impl(arrange(x.detach()), v, threshold, reset, detach, alpha, False, ATAN)
        found = [fired, last, *kernel._backward_impl(arrange(g), g_v, charged, threshold, reset, detach, alpha, False, ATAN)]
        apart.append([(one - other).abs().max().item() for one, other in zip(expected, found)])
    print(spikes.mean().item() > 0.1, *map(max, zip(*apart)))
"""


def test_the_gpu_s_kernel_and_ours_give_the_same_bits():
    """Triton's interpreter runs on a CPU what would be compiled for a GPU."""
    own = {"TRITON_INTERPRET": "1"}
    run = subprocess.run([sys.executable, "-c", INTERPRETED], env=os.environ | own, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    with_detached_reset, soft, with_reset, other_alpha = (line.split() for line in run.stdout.splitlines())
    assert with_detached_reset == soft == ["True", "0.0", "0.0", "0.0", "0.0"]
    for case in (with_reset, other_alpha):
        # Spikes and potentials are the same; gradients are in another order of operations, so that their last bits differ.
        assert case[:3] == ["True", "0.0", "0.0"]
        assert all(float(apart) < 1e-5 for apart in case[3:])


COMPILED = """
import importlib
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from spikingjelly._ops.triton_layout import _triton_layout_args, _block_minor

x = torch.zeros(4, 2, 8, 3, 3).flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, (4, 2))
MOST_TENSORS = 10
sizes, strides = _triton_layout_args(x, *[x] * MOST_TENSORS)
channels_last = sizes, strides, _block_minor(sizes, strides), x[0].numel()
settings = {"T": 10, "SOFT_RESET": False, "DETACH_RESET": True, "DECAY_INPUT": True, "SURROGATE": 1, "STORE_V_SEQ": False}
settings |= {"BLOCK": 256, "UNROLL": 1}
for package in ("if_", "lif", "plif"):
    kernel = importlib.import_module(f"spikingjelly._ops.{package}.triton")
    for function in (kernel._forward_kernel, kernel._backward_kernel):
        for layout in (None, channels_last):
            fixed = {each.name: (settings | {"LAYOUT": layout})[each.name] for each in function.params if each.is_constexpr}
            names = function.arg_names
            types = {name: "*fp32" if name.endswith("_ptr") else "i32" if name in "TN" else "fp32" for name in names if name not in fixed}
            signature = {name: types.get(name, "constexpr") for name in names}
            constants = {(names.index(name),): value for name, value in fixed.items()}
            source = ASTSource(fn=function, signature=signature, constexprs=constants)
            print(len(triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"]) > 1000)
"""


def test_the_gpu_s_kernels_compile_for_hopper(tmp_path):
    """Those of every neuron in use, forward and backward, for tensors without gaps and for channels in the last place."""
    own = {"TRITON_CACHE_DIR": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", COMPILED], env=os.environ | own, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.split() == ["True"] * 12


@pytest.fixture
def selections():
    """SpikingJelly's choices, put back afterwards."""
    found = [importlib.import_module(f"spikingjelly._ops.{name}")._selection for name in KERNELS]
    before = [selection._requested for selection in found]
    native.warn_once.cache_clear()
    settle_kernels.cache_clear()
    yield found
    for selection, requested in zip(found, before, strict=True):
        selection._requested = requested


def test_a_kernel_that_cannot_be_launched_gives_way_with_one_line(selections, caplog):
    def fail(device):
        raise RuntimeError("Python.h: No such file\nand more")

    for _ in range(2):
        settle_kernels(torch.device("cuda", 0), trial=fail)
    assert {selection._requested for selection in selections} == {"torch"}
    (line,) = caplog.messages
    assert line.startswith("SpikingJelly's kernel for neurons does not run on cuda:0 (Python.h: No such file): ")


def test_the_trial_is_made_wherever_a_classifier_runs(monkeypatch):
    """Whoever asks: training, prediction, an attack, an audit of somebody's module."""
    asked = []
    for room in (snn_sparsity.classifier, snn_sparsity.attacks.targets):
        monkeypatch.setattr(room, "settle_kernels", lambda device, room=room: asked.append((room.__name__.split(".")[1], device.type)))
    classifier = SpikingClassifier(nn.Sequential(nn.Flatten(2), nn.Linear(12, 5)))
    spikes = torch.zeros(3, 2, 3, 2, 2)
    classifier(spikes)
    SpikeTarget(classifier).logits(spikes.transpose(0, 1))
    PlainTarget(nn.Sequential(nn.Flatten(), nn.Linear(12, 5))).logits(torch.zeros(2, 3, 2, 2))
    assert asked == [("classifier", "cpu"), ("classifier", "cpu"), ("attacks", "cpu")]


def test_the_trial_runs_inside_a_pass_without_gradients():
    with torch.inference_mode():
        _one_layer(torch.device("cpu"))


def test_a_kernel_that_runs_is_left_alone(selections, caplog):
    tried = []
    with caplog.at_level(logging.WARNING):
        settle_kernels(torch.device("cuda", 0), trial=tried.append)
        settle_kernels(torch.device("cpu"), trial=tried.append)
    assert tried == [torch.device("cuda", 0)]
    assert {selection._requested for selection in selections} == {"auto"}
    assert caplog.messages == []

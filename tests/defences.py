"""The golden cases of the defences: networks filled from names, and what their authors' code made of them (float64)."""

import importlib.util
import json

import numpy as np
import torch

from snn_sparsity.classifier import SpikingClassifier
from snn_sparsity.networks import VGG, LeakyNeuron, WideResNet
from tests.conftest import SHARED

GOLDEN = SHARED / "golden" / "defences"
HIRE = LeakyNeuron(surrogate="linear", reset="subtract", detach_reset=True, strict=True, learnt=["threshold", "leak"])
SHARMIN = LeakyNeuron(leak=0.99, surrogate="linear", reset="subtract", detach_reset=True, strict=True, delayed=True)
VGG5 = [64, "A", 128, 128, "A"]
OURS = {"threshold": "_neuron.v_threshold", "leak": "_neuron.leak"}
"""The authors' names are ours, but for what a neuron learns: ``conv1.leak`` is ``conv1_neuron.leak``."""


class Case:
    """A golden file: ``case["key"]`` is a tensor, or what the JSON says; ``case.part("train_grad")`` maps names to tensors."""

    def __init__(self, name):
        with np.load(GOLDEN / f"{name}.npz") as file:
            self.arrays = {key: file[key] for key in file.files}
        self.meta = json.loads(str(self.arrays["meta"])) if "meta" in self.arrays else {}

    def __getitem__(self, key):
        array = self.arrays[key]
        return json.loads(str(array)) if array.dtype.kind == "U" and array.ndim == 0 else torch.from_numpy(array)

    def __contains__(self, key):
        return key in self.arrays

    def part(self, prefix):
        return {key.removeprefix(f"{prefix}/"): self[key] for key in self.arrays if key.startswith(f"{prefix}/")}

    def bits(self, packed, shape):
        shape = tuple(self.arrays[shape]) if isinstance(shape, str) else shape
        return torch.from_numpy(np.unpackbits(self.arrays[packed])[: np.prod(shape)].reshape(shape)).double()

    @property
    def x(self):
        return self["images"].double() / 255


def our_name(name):
    layer, _, last = name.rpartition(".")
    return layer + OURS[last] if last in OURS else name


def fill(network, shapes, salt=""):
    """Fill a network by the authors' names; return it in float64 and eval mode."""
    specification = importlib.util.spec_from_file_location("fill_defences", GOLDEN / "fill.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    weights = {our_name(name): torch.from_numpy(array) for name, array in module.fill(shapes, salt).items()}
    own = {name for name in network.state_dict() if not name.endswith("num_batches_tracked")}
    assert own == weights.keys()
    network.load_state_dict(weights, strict=False)
    return network.double().eval()


def classifier_of(case, **settings):
    """A classifier around the case's network, whose kind follows from its names."""
    shapes, meta = case.meta["shapes"], case.meta
    given = {"num_classes": meta.get("classes", 10)}
    if "fc.weight" in shapes:
        groups = max(int(name.split(".")[1]) for name in shapes if name.startswith("block1.")) + 1
        settings = {"depth": 6 * groups + 4, "width": shapes["block1.0.conv1.weight"][0] // 16} | given | settings
        network = WideResNet(**settings, mean=meta["mean"], std=meta["std"])
    else:
        convolutions = [shapes[name][0] for name in shapes if name.startswith("conv") and name.endswith(".weight")]
        pooled_after = {3: (1, 3), 8: (1, 3, 6)}[len(convolutions)]
        channels = [part for i, width in enumerate(convolutions, 1) for part in ([width, "A"] if i in pooled_after else [width])]
        given |= {"bias": "conv1.bias" in shapes, "batch_norm": "bn1.weight" in shapes}
        if "conv1.threshold" in shapes:
            given |= {"neurons": HIRE, "readout": "sum"}
        network = VGG(channels, shapes["fc1.weight"][0], **given | {"mean": meta["mean"], "std": meta["std"]} | settings)
    return SpikingClassifier(fill(network, shapes, meta["salt"])).eval()


def shown(x, steps):
    """Direct code: [T,N,...]."""
    return x.expand(steps, *x.shape)


def assert_close(ours, theirs, name=""):
    """Equal to 1e-9 of the largest entry."""
    theirs = torch.as_tensor(theirs)
    difference = (ours.detach() - theirs).abs().max().item()
    assert difference <= 1e-9 * max(1e-3, theirs.abs().max().item()), (name, difference)

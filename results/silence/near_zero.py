"""Which channels of a trained network are dead, and how small the gradient at its neurons is: near_zero.py CIFAR10.NPZ CHECKPOINT...

A channel is dead where the scale of its BatchNorm inside a residual block (bn1) is below 0.001. Shares are means over all neurons, on the
first 64 test images, BatchNorm in eval mode, in percent: of entries that are exactly zero, and of at most 1e-38, 1e-30, 1e-20 and 1e-12.
"""

import sys

import torch

from snn_sparsity import ArrayDataModule, SpikingClassifier
from snn_sparsity.attacks.base import input_gradient
from snn_sparsity.attacks.targets import SpikeTarget
from snn_sparsity.measure.gradients import record_gradients

LEVELS = (0.0, 1e-38, 1e-30, 1e-20, 1e-12)
path, *checkpoints = sys.argv[1:]
data = ArrayDataModule(path=path, validation="test")
data.prepare_data()
data.setup("fit")
images, labels = data.split("test").select(torch.arange(64))
spikes = data.spike_encoder(images).transpose(0, 1).contiguous()

for checkpoint in checkpoints:
    classifier = SpikingClassifier.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=True)
    scales = {name: module.weight.abs() for name, module in classifier.network.named_modules() if name.endswith(".bn1")}
    print(checkpoint, "dead:", ", ".join(f"{name} {100 * float((scale < 1e-3).float().mean()):.0f} %" for name, scale in scales.items()))
    for flush in (True, False):
        torch.set_flush_denormal(flush)
        with record_gradients(
            classifier.network, ["neuron"], reduce=lambda _, g: [float((g.abs() <= x).float().mean()) for x in LEVELS]
        ) as record:
            input_gradient(SpikeTarget(classifier).logits, spikes, labels)
        means = 100 * torch.tensor([record.values[operation.path] for operation in record.operations]).mean(0)
        print("  denormals flushed:" if flush else "  denormals kept:   ", *(f"{share:.2f}" for share in means.tolist()))

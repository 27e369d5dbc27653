"""Train on from the weights of a checkpoint, Adam begun anew: more_epochs.py CHECKPOINT WEIGHT_DECAY EPOCHS OUT.

Zeros of the gradient are measured twice an epoch (docs/findings.md). The original CIFAR-10 lies in cifar10.npz.
"""

import sys

import lightning

from snn_sparsity import ArrayDataModule, GradientSparsity, SpikingClassifier
from snn_sparsity.probes import SparsityOrigin
from snn_sparsity.training.metrics_logger import MetricsCSV

checkpoint, decay, epochs, out = sys.argv[1:]
lightning.seed_everything(3407)
classifier = SpikingClassifier.load_from_checkpoint(checkpoint, weight_decay=float(decay), map_location="cpu", weights_only=True)
data = ArrayDataModule(path="cifar10.npz", batch_size=16, eval_batch_size=125, test_samples=1000, validation="test", seed=3407)
kinds = ["conv", "bn", "neuron", "surrogate", "pool", "linear"]
probes = [GradientSparsity(max_samples=256, kinds=kinds), SparsityOrigin(max_samples=64)]
trainer = lightning.Trainer(
    max_epochs=int(epochs), val_check_interval=0.5, callbacks=probes, logger=MetricsCSV(out), enable_checkpointing=False, accelerator="cpu"
)
trainer.fit(classifier, data)

"""Train a few steps on one process or on two that share a device: ``python -m benchmarks.gpu_proof.ranks DEVICE RANKS FILE``.

With gloo, which lets two processes use one GPU; NCCL does not. Rank 0 writes losses, weights, and how far the ranks' weights are apart.
"""

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from lightning import Callback, Trainer
from lightning.pytorch.strategies import DDPStrategy

from benchmarks.gpu_proof.images import NoiseImages
from snn_sparsity.classifier import SpikingClassifier
from snn_sparsity.encoders import PhaseEncoder
from snn_sparsity.networks import SEWResNet
from snn_sparsity.networks.gpu import settle_kernels
from snn_sparsity.training.sync_batchnorm import MultiStepSyncBatchNorm

BATCH = 8


class Losses(Callback):
    """Keeps the mean loss of all ranks, and at the end how far their weights are apart."""

    def __init__(self, file: Path) -> None:
        self.file, self.losses = file, []

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Keep it."""
        self.losses.append(float(trainer.strategy.reduce(outputs["loss"].detach().clone(), reduce_op="mean")))

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Write."""
        weights = torch.cat([parameter.detach().flatten() for parameter in pl_module.parameters()]).cpu()
        apart = 0.0
        if torch.distributed.is_initialized():
            everyone: list[Any] = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(everyone, weights)
            apart = max(float((other - weights).abs().max()) for other in everyone)
        if trainer.is_global_zero:
            torch.save({"losses": self.losses, "weights": weights, "ranks_apart": apart}, self.file)


def train(device: str, ranks: int, file: Path) -> None:
    """Train with the same batches on any number of ranks."""
    torch.manual_seed(0)
    torch.backends.cudnn.deterministic = True
    torch.set_num_threads(1)
    place = torch.device(device, 0) if device == "cuda" else torch.device("cpu")
    settle_kernels(place)
    strategy: Any = DDPStrategy(parallel_devices=[place] * ranks, process_group_backend="gloo") if ranks > 1 else "auto"
    trainer = Trainer(
        max_epochs=1, strategy=strategy, accelerator="gpu" if device == "cuda" else "cpu", devices=ranks if device == "cpu" else "auto",
        plugins=[MultiStepSyncBatchNorm()] if ranks > 1 else None, callbacks=[Losses(file)], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip
    data = NoiseImages(
        images=64 if device == "cuda" else 32, encoder=PhaseEncoder(num_steps=4), batch_size=BATCH // ranks, validation="test"
    )
    trainer.fit(SpikingClassifier(SEWResNet(depth=18, num_classes=10)), datamodule=data)


if __name__ == "__main__":
    train(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))

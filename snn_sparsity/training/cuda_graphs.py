"""CUDA graphs in a fit and a test."""

from typing import Any

from lightning import Callback, LightningModule, Trainer

from snn_sparsity.networks.replay import Replayed
from snn_sparsity.validation import InputError


class CUDAGraphs(Callback):
    """Replay the network's forward and backward passes, in training and in attacks: each is one launch, instead of hundreds from Python.

    The first pass of each kind is captured. Batches of another size, hooked networks, attacks through a backward rule, a pass that begins
    before the gradient of the last was taken, and passes without a gradient run as ever. The kernels are the same, in the same order, so
    losses and gradients are too. A step of 16 images of SEW-ResNet18 is mostly launches: ``docs/performance.md`` has what was measured.

    Raises:
        InputError: When training, validation or a test starts, if there is no ``SpikingClassifier``, no GPU, more than one process, a
            precision other than float32 (a replay knows no autocast), or accumulated gradients (a replay writes its gradients over
            those of the last).

    Example:
        >>> from lightning import Trainer
        >>> trainer = Trainer(callbacks=[CUDAGraphs()], accelerator="cpu", logger=False)

        On the command line: ``snn-sparsity fit ... --trainer.callbacks+ CUDAGraphs``.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what cannot be replayed; replay from here on."""
        self._begin(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what cannot be replayed; replay from here on."""
        self._begin(trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what cannot be replayed; replay from here on."""
        self._begin(trainer, pl_module)

    def teardown(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Free the graphs' memory."""
        pl_module.replayed = None

    def _begin(self, trainer: Trainer, pl_module: Any) -> None:
        reasons = {
            "it is for a SpikingClassifier": not hasattr(pl_module, "replayed"),
            "it needs a GPU": pl_module.device.type != "cuda",
            "it is for one process": trainer.world_size > 1,
            f"it is for float32, not {trainer.precision}": trainer.precision != "32-true",
            "it cannot accumulate gradients": trainer.accumulate_grad_batches != 1,
        }
        for reason, holds in reasons.items():
            if holds:
                raise InputError(f"CUDAGraphs: {reason}; leave the callback out")
        pl_module.replayed = pl_module.replayed or Replayed(pl_module.network)

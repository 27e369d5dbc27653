"""A word about spiking layers that say nothing: silent, or firing at every step."""

import logging
from functools import partial
from typing import Any

from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from snn_sparsity.measure.operations import operations
from snn_sparsity.validation import InputError

log = logging.getLogger(__name__)


class DeadLayers(Callback):
    """Warn, once a layer, of spiking layers in which no element or every element fires throughout the first evaluated batch.

    Nothing behind a silent layer sees the image, and no gradient comes through one that is saturated. Training pays nothing: only the
    first batch of each validation or test is watched. It must stand before the probes, whose passes are not the network's own.
    """

    def __init__(self) -> None:
        self._warned: set[str] = set()
        self._fired: dict[str, tuple[Tensor, Tensor]] = {}
        self._hooks: list[RemovableHandle] = []

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Begin to watch."""
        if batch_idx == 0 and not trainer.sanity_checking:
            self._watch(trainer, pl_module)

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Begin to watch."""
        if batch_idx == 0:
            self._watch(trainer, pl_module)

    def on_validation_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Say what was seen."""
        self._warn(trainer)

    def on_test_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Say what was seen."""
        self._warn(trainer)

    def _watch(self, trainer: Trainer, pl_module: LightningModule) -> None:
        network: Any = pl_module.network
        if not trainer.is_global_zero:
            return
        try:
            layers = operations(network, ["neuron"])
        except InputError:  # a network without spiking neurons
            return
        self._hooks = [layer.module.register_forward_hook(partial(self._note, layer.path)) for layer in layers]

    def _note(self, path: str, module: nn.Module, inputs: tuple[Any, ...], spikes: Tensor) -> None:
        # Step by step, a neuron is called once a time step.
        fires = spikes != 0
        some, every = self._fired.get(path, (fires.any(), fires.all()))
        self._fired[path] = some | fires.any(), every & fires.all()

    def _warn(self, trainer: Trainer) -> None:
        for hook in self._hooks:
            hook.remove()
        for path, (some, every) in self._fired.items():
            if path not in self._warned and (every or not some):
                self._warned.add(path)
                log.warning(DEAD, path, "every" if every else "no", trainer.current_epoch)
        self._hooks, self._fired = [], {}


DEAD = "Dead layer: in %s %s element fires throughout the first evaluated batch of epoch %d; what it passes on does not depend on the image"

"""Lightning's plugin for a BatchNorm that is synchronised between processes."""

from lightning.pytorch.plugins import LayerSync
from torch import nn

from snn_sparsity.networks.sync_batch_norm import desynchronise, synchronise


class MultiStepSyncBatchNorm(LayerSync):
    """What ``--trainer.sync_batchnorm true`` uses instead of Lightning's conversion, which loses the time dimension.

    Example:
        >>> from lightning import Trainer
        >>> trainer = Trainer(plugins=[MultiStepSyncBatchNorm()], accelerator="cpu", logger=False)
    """

    def apply(self, model: nn.Module) -> nn.Module:
        """Synchronise every BatchNorm of the model.

        Raises:
            InputError: For a BatchNorm that is not SpikingJelly's.
        """
        synchronise(model)
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        """Undo it."""
        desynchronise(model)
        return model

"""Hyperparameters in checkpoints: plain values only, so that ``torch.load(weights_only=True)`` reads them."""

from lightning.pytorch.core.mixins.hparams_mixin import _given_hyperparameters


def objects_to_ignore(*names: str) -> list[str]:
    """Return which of these constructor arguments ``save_hyperparameters`` must leave out.

    Made by the command line, an argument is known by its class path and can be kept; made in Python it is an object that a
    checkpoint could only pickle.
    """
    return [] if _given_hyperparameters.get() is not None else list(names)

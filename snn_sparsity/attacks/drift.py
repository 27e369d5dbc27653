"""How BatchNorm's running statistics drift while a batch is attacked: batches can be attacked apart, and judged one after another."""

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from snn_sparsity.validation import InputError

Statistics = dict[str, Tensor]
"""Running means and variances, by their names in the network."""


class Drift(NamedTuple):
    """What the passes of one batch do to running statistics, whatever these were before: ``kept * before + added``.

    Attributes:
        kept: What is left of each, ``(1 - momentum)^passes``.
        added: What came in its place, float64.
    """

    kept: dict[str, float]
    added: Statistics

    @classmethod
    def between(cls, network: nn.Module, before: Statistics, after: Statistics) -> "Drift":
        """Return the drift of the passes in between; both hold all buffers of the network, ``num_batches_tracked`` among them.

        Raises:
            InputError: For a BatchNorm that averages over all batches (momentum null): no pass ever fades.
        """
        kept: dict[str, float] = {}
        for path, module in tracking(network).items():
            if module.momentum is None:
                raise InputError(f"batch_norm='batch' needs BatchNorms with a momentum: that of {path} is null")
            passes = int(after[f"{path}.num_batches_tracked"] - before[f"{path}.num_batches_tracked"])
            kept |= {f"{path}.{name}": (1 - module.momentum) ** passes for name in ("running_mean", "running_var")}
        return cls(kept, {name: after[name].cpu().double() - share * before[name].cpu().double() for name, share in kept.items()})

    def of(self, statistics: Statistics) -> Statistics:
        """Return what becomes of statistics.

        Example:
            >>> import torch
            >>> Drift({"bn.running_mean": 0.9}, {"bn.running_mean": torch.tensor(0.5)}).of({"bn.running_mean": torch.tensor(1.0)})
            {'bn.running_mean': tensor(1.4000)}
        """
        return {name: share * statistics[name] + self.added[name] for name, share in self.kept.items()}


def running_statistics(network: nn.Module) -> Statistics:
    """Return copies of a network's running means and variances, in float64 on the CPU."""
    return {
        f"{path}.{name}": getattr(module, name).cpu().double()
        for path, module in tracking(network).items()
        for name in ("running_mean", "running_var")
    }


def tracking(network: nn.Module) -> dict[str, _BatchNorm]:
    """Return the BatchNorms that keep running statistics, by path."""
    return {path: module for path, module in network.named_modules() if isinstance(module, _BatchNorm) and module.running_mean is not None}

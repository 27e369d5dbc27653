"""What a probe may look at besides the batch."""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from snn_sparsity.attacks.targets import ImageClassifier, PlainTarget, SpikeTarget
from snn_sparsity.batch import SpikeBatch
from snn_sparsity.distributed import Meeting
from snn_sparsity.encoders import Encoder
from snn_sparsity.protocols import BatchNormMode
from snn_sparsity.validation import InputError

if TYPE_CHECKING:
    from snn_sparsity.probes.base import Probe


class ProbeContext(NamedTuple):
    """What a probe may look at besides the batch.

    Attributes:
        classifier: The module in training, in eval mode; maps spikes [T,N,C,H,W] to logits [N,K]. A module whose batches are images is
            seen through :class:`ImageClassifier`, which takes them as one time step [1,N,C,H,W].
        encoder: The spike code of the data; None for a foreign datamodule.
        generator: The probe's own random numbers, a function of (seed, probe name, place of the batch) alone.
        first: Place of the batch's first image in the whole set.
        partners: All probes that look at exactly this batch, this one among them, in the order in which they run.
        meeting: Where to share something with the other processes, each of which measures a batch of its own meanwhile.
        rank: This process, which also is the place of its batch among those measured at the same time.
    """

    classifier: nn.Module
    encoder: Encoder | None
    generator: torch.Generator
    first: int
    partners: "tuple[Probe, ...]"
    meeting: Meeting
    rank: int

    @property
    def plain(self) -> bool:
        """Whether the batches are images, without a code of spikes."""
        return isinstance(self.classifier, ImageClassifier)

    @property
    def network(self) -> nn.Module:
        """What operations are looked for in: the ``network`` of the classifier, or all of it."""
        network: nn.Module = getattr(self.classifier, "network", self.classifier)
        return network

    def inputs(self, batch: SpikeBatch, batch_norm: BatchNormMode) -> tuple[SpikeTarget, Tensor]:
        """Return the classifier as a target, seen from what goes into it, and that of a batch: spikes [N,T,...], or plain images."""
        if self.plain:
            return PlainTarget(self.network, batch_norm), batch.spikes[0]
        return SpikeTarget(self.classifier, batch_norm), batch.spikes.transpose(0, 1)

    def require_bounds(self, x: Tensor) -> None:
        """Raise InputError if plain images are not in [0,1]: an attack would not know how far it may go."""
        if self.plain and x.numel() and not (x.min() >= 0 and x.max() <= 1):
            raise InputError(
                f"images go from {x.min():.3g} to {x.max():.3g}; an attack needs them in [0,1]: let the module's forward normalise them"
            )

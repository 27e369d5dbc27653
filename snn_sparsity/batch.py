"""The batch that the data hands to networks and probes."""

from typing import NamedTuple

from torch import Tensor


class SpikeBatch(NamedTuple):
    """A batch as networks and probes see it.

    Attributes:
        spikes: [T,N,C,H,W] float32.
        labels: [N] int64.
        images: [N,C,H,W] uint8, the pixels behind the spikes, after augmentation.
    """

    spikes: Tensor
    labels: Tensor
    images: Tensor

    def first(self, count: int) -> "SpikeBatch":
        """Return the first images of the batch."""
        return SpikeBatch(self.spikes[:, :count], self.labels[:count], self.images[:count])

    def clone(self) -> "SpikeBatch":
        """Return a copy; made outside inference mode, it can take part in a backward pass."""
        return SpikeBatch(*(tensor.clone() for tensor in self))

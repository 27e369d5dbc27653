"""A target seen through something: what a meter, an average over draws and a mixture of networks have in common."""

from abc import ABC, abstractmethod
from typing import Any, Self

from torch import Tensor, nn

from snn_sparsity.protocols import Space


class WrappedTarget(ABC):
    """A target seen through something (a meter, several draws); to an attack it looks like the target it wraps.

    Args:
        target: Any target.
    """

    def __init__(self, target: Any) -> None:
        self.target = target
        self.space: Space = target.space
        self.bounds: tuple[float, float] = target.bounds

    @abstractmethod
    def logits(self, x: Tensor) -> Tensor:
        """Return the logits as an attack sees them; see :class:`Target`."""

    @abstractmethod
    def around(self, target: Any) -> Self:
        """Return another target seen through the same."""

    @property
    def network(self) -> nn.Module:
        """The attacked module."""
        network: nn.Module = self.target.network
        return network

    @property
    def code_book(self) -> Tensor | None:
        """[256,T], if the target has one."""
        return getattr(self.target, "code_book", None)

    @property
    def spikes(self) -> Self:
        """The same network, seen from its spikes."""
        return self.around(self.target.spikes)

    def smoothed(self, half_width: int) -> Self:
        """Return the target with another half-width of its code."""
        return self.around(self.target.smoothed(half_width))

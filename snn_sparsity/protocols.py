"""Protocols: what an attacker may change, and what BatchNorm does while the change is crafted."""

from typing import Literal, NamedTuple

Space = Literal["image", "spikes"]
BatchNormMode = Literal["eval", "batch"]


class Protocol(NamedTuple):
    """One of them; numbers of two protocols never share a curve, a column or a chart.

    Attributes:
        space: ``image``, the pixels, with the same change at every time step; or ``spikes``, the encoded image.
        batch_norm: ``eval``, the running statistics; or ``batch``, those of the batch under attack.

    Example:
        >>> STRICT.title
        'strict protocol: pixels of the image, BatchNorm eval'
    """

    space: Space
    batch_norm: BatchNormMode

    @property
    def title(self) -> str:
        """The protocol in words."""
        names = {PAPER: "paper's protocol", STRICT: "strict protocol"}
        what = "encoded spikes" if self.space == "spikes" else "pixels of the image"
        return f"{names.get(self, 'another protocol')}: {what}, BatchNorm {self.batch_norm}"


PAPER = Protocol("spikes", "batch")
"""As the paper's published code attacks (arXiv 2509.23762)."""
STRICT = Protocol("image", "eval")

"""Direct coding: the pixel's value at every time step; the network's first neurons make the spikes."""

import torch
from torch import Tensor

from snn_sparsity.encoders.base import PixelCode, all_levels, grey_levels, require_steps


class DirectEncoder(PixelCode):
    """Show ``v/255`` at each of T steps.

    The one code with a gradient: that of the identity, past the rounding to the 8-bit lattice (which moves a value by at
    most 1/510).

    Args:
        num_steps: T, 1 to 10,000.

    Raises:
        InputError: For T out of this range.

    Example:
        >>> DirectEncoder(num_steps=2)(torch.tensor([[[[51]]]], dtype=torch.uint8)).flatten().tolist()
        [0.20000000298023224, 0.20000000298023224]
    """

    shows_values = True

    def __init__(self, num_steps: int = 10) -> None:
        require_steps(num_steps)
        super().__init__((all_levels() / 255).expand(-1, num_steps))

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Repeat the image T times; see :meth:`Encoder.forward`."""
        if not images.is_floating_point():
            return super().forward(images)
        on_lattice = grey_levels(images).to(images.dtype) / 255
        return (on_lattice + (images - images.detach())).expand(self.num_steps, *images.shape)

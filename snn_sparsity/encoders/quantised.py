"""Stochastic quantisation: at each step a pixel is rounded at random to one of a few levels."""

import torch
from torch import Tensor

from snn_sparsity.encoders.base import Encoder, grey_levels
from snn_sparsity.validation import require_number

MOST_LEVELS = 255


class QuantisedEncoder(Encoder):
    """Round x to a multiple of 1/N, up or down at random with mean x, afresh for every pixel and step: ``floor(N x + u) / N``, u in [0,1).

    N = 1 is Poisson coding, N towards infinity direct coding. ``signed`` codes ``2x - 1`` in [-1,1] instead, by its sign and the code
    of its absolute value: with N = 1 the signed Poisson code of Sharmin et al. (ECCV 2020), at T of 100 to 175; with ``signed: false``
    and N = 2 that of SQE (arXiv 2610.01558). The gradient goes straight through: that of the mean, 1 a step (2 where signed).

    Args:
        num_steps: T, 1 to 10,000.
        levels: N, 1 to 255.
        signed: Whether ``2x - 1`` is coded.

    Raises:
        InputError: For a number outside its range; in a call, without a generator.

    Example:
        >>> encoder, images = QuantisedEncoder(num_steps=3, levels=1, signed=True), torch.tensor([[[[0, 255]]]], dtype=torch.uint8)
        >>> encoder(images, torch.Generator().manual_seed(0)).flatten().tolist()
        [-1.0, 1.0, -1.0, 1.0, -1.0, 1.0]
    """

    stochastic = True

    def __init__(self, num_steps: int = 8, levels: int = 2, signed: bool = False) -> None:
        super().__init__(num_steps)
        require_number("levels", levels, at_least=1, at_most=MOST_LEVELS, whole=True)
        self.levels, self.signed = levels, signed

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw the levels; see :meth:`Encoder.forward`."""
        generator = self.require_generator(generator)
        dtype = images.dtype if images.is_floating_point() else torch.float32
        x = grey_levels(images).to(dtype) / 255
        value = 2 * x - 1 if self.signed else x
        draws = torch.rand(self.num_steps, *images.shape, generator=generator, device=generator.device).to(images.device, dtype)
        # Rounding may bring the sum to the next whole number.
        code = value.sign() * (self.levels * value.abs() + draws).floor().clamp(max=self.levels) / self.levels
        if not images.requires_grad:
            return code
        return code + (2 if self.signed else 1) * (images - images.detach())

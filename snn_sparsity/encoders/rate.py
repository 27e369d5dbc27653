"""Rate coding: at each step a pixel fires with the probability of its brightness."""

import torch
from torch import Tensor

from snn_sparsity.encoders.base import LEVELS, Encoder, all_levels, grey_levels


class RateEncoder(Encoder):
    """Fire at step t if ``u < v/255`` with u uniform in [0,1), drawn afresh for every pixel and step (Bernoulli, "Poisson").

    Args:
        num_steps: T, 1 to 10,000.

    Raises:
        InputError: For T out of this range; in a call, without a generator.

    Example:
        >>> images = torch.tensor([[[[0, 255]]]], dtype=torch.uint8)
        >>> RateEncoder(num_steps=2)(images, torch.Generator().manual_seed(0)).flatten().tolist()
        [0.0, 1.0, 0.0, 1.0]
    """

    stochastic = True

    def __init__(self, num_steps: int = 10) -> None:
        super().__init__(num_steps)

    @property
    def mean_code(self) -> Tensor:
        """[256,T], the probability with which each grey level fires: what a gradient can be taken through."""
        return (all_levels() / (LEVELS - 1)).expand(-1, self.num_steps)

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw spikes; see :meth:`Encoder.forward`."""
        self.refuse_gradient(images)
        probability = grey_levels(images) / 255
        generator = self.require_generator(generator)
        draws = torch.rand(self.num_steps, *images.shape, generator=generator, device=generator.device)
        return (draws.to(images.device) < probability).float()

"""Phase coding: the bits of a pixel, most significant first, one a time step."""

import torch
from torch import Tensor

from snn_sparsity.encoders.base import PixelCode, all_levels, require_steps
from snn_sparsity.validation import InputError, require_number


class PhaseEncoder(PixelCode):
    """Show bit ``7 - (t mod K)`` of the pixel at time step t.

    With T=10 and K=8, the paper's setting, steps 8 and 9 repeat the two highest bits. ``weighted`` multiplies step t by
    ``w(t) = 2^-(1 + t mod K)``. Source: the paper's section 4.1 (arXiv 2509.23762); Kim et al., Neurocomputing 311 (2018).

    Args:
        num_steps: T, 1 to 10,000.
        num_bits: K, 1 to 8; with K < 8 the lowest bits are dropped.
        weighted: Whether spikes carry the weight of their phase.

    Raises:
        InputError: For a number outside its range.

    Example:
        >>> PhaseEncoder(num_steps=8)(torch.tensor([[[[192]]]], dtype=torch.uint8)).flatten().int().tolist()
        [1, 1, 0, 0, 0, 0, 0, 0]
    """

    def __init__(self, num_steps: int = 10, num_bits: int = 8, weighted: bool = False) -> None:
        require_steps(num_steps)
        require_number("num_bits", num_bits, at_least=1, at_most=8, whole=True)
        phase = torch.arange(num_steps) % num_bits
        bits = (all_levels() >> (7 - phase)) & 1
        super().__init__(bits * torch.exp2(-(1.0 + phase)) if weighted else bits)
        self.num_bits = num_bits
        self.weighted = weighted

    def decode(self, spikes: Tensor) -> Tensor:
        """Return the grey levels that spikes show: ``sum_k 2^(7-k) [spike at step k]`` over the first K steps.

        Args:
            spikes: [T,N,C,H,W].

        Returns:
            [N,C,H,W] uint8; equal to the encoded image when K is 8.

        Raises:
            InputError: If there are fewer steps than bits, so that the lowest bits were never shown.

        Example:
            >>> image = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
            >>> bool((PhaseEncoder().decode(PhaseEncoder()(image)) == image).all())
            True
        """
        if spikes.shape[0] < self.num_bits:
            raise InputError(f"{spikes.shape[0]} time steps do not show all {self.num_bits} bits: decoding needs num_steps >= num_bits")
        bits = (spikes[: self.num_bits] > 0).to(torch.int64)
        shift = 7 - torch.arange(self.num_bits, device=spikes.device).view(-1, *[1] * (spikes.ndim - 1))
        return (bits << shift).sum(0).to(torch.uint8)

"""Latency coding: one spike per pixel, the brighter the earlier."""

import torch

from snn_sparsity.encoders.base import PixelCode, all_levels, require_steps


class LatencyEncoder(PixelCode):
    """Fire once, at step ``round((T-1)(1 - v/255))``.

    Equal to SpikingJelly's ``LatencyEncoder(T, "linear")`` on ``v/255``.

    Args:
        num_steps: T, 1 to 10,000.

    Raises:
        InputError: For T out of this range.

    Example:
        >>> LatencyEncoder(num_steps=3)(torch.tensor([[[[255, 0]]]], dtype=torch.uint8))[:, 0, 0, 0].int().tolist()
        [[1, 0], [0, 0], [0, 1]]
    """

    def __init__(self, num_steps: int = 10) -> None:
        require_steps(num_steps)
        spike_time = ((num_steps - 1) * (1 - all_levels() / 255)).round()
        super().__init__(spike_time == torch.arange(num_steps))

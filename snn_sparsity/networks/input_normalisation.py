"""Channel normalisation as the first layer of a network, so that an attack sees the image in [0,1]."""

import torch
from torch import Tensor, nn

from snn_sparsity.validation import InputError, require_number


class Normalise(nn.Module):
    """``(x - mean) / std``, channel by channel.

    Args:
        mean: One number a channel; null with ``std`` null leaves x as it is.
        std: One number a channel, above 0.

    Raises:
        InputError: If one is given without the other, they differ in length, or a number is out of range.

    Example:
        >>> Normalise([0.5], [0.25])(torch.ones(2, 1, 1, 1)).flatten().tolist()
        [2.0, 2.0]
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        if len(mean) != len(std):
            raise InputError(f"mean={mean} with std={std} is not allowed: give as many numbers of each, one a channel")
        for number in mean:
            require_number("mean", number)
        for number in std:
            require_number("std", number, above=0)
        # Settings, not state: a checkpoint does not hold them. Kept in float64 so that a float64 network has exactly these.
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float64).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float64).view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return x [...,C,H,W] normalised."""
        return (x - self.mean.to(x.dtype)) / self.std.to(x.dtype)

    def extra_repr(self) -> str:
        """Return the numbers, for ``print``."""
        return f"mean={self.mean.flatten().tolist()}, std={self.std.flatten().tolist()}"


def input_normalisation(mean: list[float] | None, std: list[float] | None) -> nn.Module:
    """Return the layer for settings that may be null.

    Raises:
        InputError: If one is given without the other.
    """
    if mean is None and std is None:
        return nn.Identity()
    if mean is None or std is None:
        raise InputError(f"mean={mean} with std={std} is not allowed: give both, or neither")
    return Normalise(mean, std)

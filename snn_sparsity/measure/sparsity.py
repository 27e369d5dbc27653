"""Pure statistics of a gradient tensor, one number per sample."""

from torch import Tensor

TINY = 1e-30
"""What a dead channel's gradient does not reach, be denormal numbers kept or flushed, and a living one's seldom falls below."""


def zero_fraction(gradient: Tensor, batch_dim: int = 0) -> Tensor:
    """Return the share of exact zeros of each sample, ``#{g_i = 0} / #{g_i}``.

    Args:
        gradient: Any shape with the samples along ``batch_dim``.
        batch_dim: Dimension of the samples.

    Returns:
        [N] in [0,1].

    Example:
        >>> import torch
        >>> zero_fraction(torch.tensor([[0.0, 0.0, 3.0, 4.0]])).tolist()
        [0.5]
    """
    return (per_sample(gradient, batch_dim) == 0).float().mean(1)


def tiny_fraction(gradient: Tensor, batch_dim: int = 0) -> Tensor:
    """Return the share of entries of each sample that are as good as zero, ``#{|g_i| <= 1e-30} / #{g_i}``.

    A channel that weight decay has killed sends exact zeros where its weights became denormal (a GPU), and 1e-33 where such numbers
    are flushed (a CPU): this share counts both.

    Args:
        gradient: Any shape with the samples along ``batch_dim``.
        batch_dim: Dimension of the samples.

    Returns:
        [N] in [0,1].

    Example:
        >>> import torch
        >>> tiny_fraction(torch.tensor([[0.0, -1e-33, 3.0, 4.0]])).tolist()
        [0.5]
    """
    return (per_sample(gradient, batch_dim).abs() <= TINY).float().mean(1)


def l2_norm(gradient: Tensor, batch_dim: int = 0) -> Tensor:
    """Return the Euclidean norm of each sample, ``sqrt(sum_i g_i^2)``.

    Args:
        gradient: Any shape with the samples along ``batch_dim``.
        batch_dim: Dimension of the samples.

    Returns:
        [N], in the gradient's unit.

    Example:
        >>> import torch
        >>> l2_norm(torch.tensor([[0.0, 0.0, 3.0, 4.0]])).tolist()
        [5.0]
    """
    return per_sample(gradient, batch_dim).norm(dim=1)


def per_sample(tensor: Tensor, batch_dim: int = 0) -> Tensor:
    """Return ``tensor`` as [N, everything else].

    Example:
        >>> import torch
        >>> per_sample(torch.zeros(10, 4, 3), batch_dim=1).shape
        torch.Size([4, 30])
    """
    return tensor.movedim(batch_dim, 0).flatten(1)

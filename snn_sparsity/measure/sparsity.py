"""Pure statistics of a gradient tensor, one number per sample."""

from torch import Tensor


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

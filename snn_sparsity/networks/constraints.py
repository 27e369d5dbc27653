"""What weights are held to after a training step: near-orthogonal rows, sums on the simplex."""

import torch
from torch import Tensor


def retract(weight: Tensor, beta: float | Tensor, rows: Tensor | None = None) -> None:
    """Move a weight towards orthonormal rows, in place: ``W <- (1 + beta) W - beta W W^T W`` (Parseval retraction).

    One step of length beta down ``1/4 |W W^T - I|^2``. A singular value s becomes ``(1 + beta) s - beta s^3``: near 1 its distance to 1
    shrinks by ``1 - 2 beta`` a step. From Cisse et al., arXiv 1704.08847, as SNN-RAT (Ding et al., NeurIPS 2022) uses it.

    Args:
        weight: [out, ...], seen as a matrix [out, everything else].
        beta: Above 0 and below 1/2.
        rows: [k] int64, the only rows to look at and to change; null is all.

    Example:
        >>> weight = torch.tensor([[1.0, 2.0], [0.0, 1.0]])
        >>> retract(weight, 0.1)
        >>> weight.tolist()
        [[0.6000000238418579, 1.0], [-0.20000000298023224, 0.6000000238418579]]
    """
    with torch.no_grad():
        matrix = weight.flatten(1)
        chosen = matrix if rows is None else matrix[rows]
        moved = (1 + beta) * chosen - beta * ((chosen @ chosen.T) @ chosen)
        if rows is None:
            weight.copy_(moved.view_as(weight))
        else:
            weight[rows] = moved.view_as(weight[rows])


def simplex_projection(vector: Tensor) -> Tensor:
    """Return the nearest vector with entries of at least 0 that add up to 1.

    By the sorting algorithm of Held et al. (Mathematical Programming 6, 1974); see Duchi et al., ICML 2008.

    Args:
        vector: [n].

    Example:
        >>> simplex_projection(torch.tensor([1.5, -1.0])).tolist()
        [1.0, 0.0]
    """
    ordered = vector.sort(descending=True).values
    shift = (ordered.cumsum(0) - 1) / torch.arange(1, len(vector) + 1, dtype=vector.dtype, device=vector.device)
    last = (ordered > shift).sum() - 1
    return (vector - shift.gather(0, last.unsqueeze(0))).clamp(min=0)

"""How far membranes are from the threshold, and what a surrogate gradient still sees there."""

import torch
from spikingjelly.activation_based import neuron, surrogate
from torch import Tensor, nn

from snn_sparsity.validation import InputError

UNSEEN_SLOPE = 1e-3
"""A neuron counts as unseen where the surrogate's slope is below this share of its maximum."""


def membrane_distance(node: nn.Module, x: Tensor) -> Tensor:
    """Return ``u[t] - V_th`` before the reset, ``u[t] = v[t-1] + x[t]`` from rest.

    Args:
        node: SpikingJelly's ``IFNode``.
        x: [T,N,...], its input.

    Returns:
        Of the shape of x, in units of the membrane potential.

    Raises:
        InputError: For another neuron.

    Example:
        >>> membrane_distance(neuron.IFNode(v_threshold=1.0), torch.tensor([[0.75], [0.75], [0.25]])).flatten().tolist()
        [-0.25, 0.5, -0.75]
    """
    if not isinstance(node, neuron.IFNode):
        raise InputError(f"only integrate-and-fire neurons (IFNode) are known, this is {type(node).__name__}")
    v = torch.zeros_like(x[0]) if node.v_reset is None else torch.full_like(x[0], node.v_reset)
    distances = []
    for current in x:
        u = v + current
        distances.append(u - node.v_threshold)
        spike = u >= node.v_threshold
        v = torch.where(spike, u - node.v_threshold if node.v_reset is None else torch.full_like(u, node.v_reset), u)
    return torch.stack(distances)


def vanishing_degree(function: surrogate.SurrogateFunctionBase, distance: Tensor) -> Tensor:
    """Return ``G(d) = P(|d|) - P(-|d|)`` with P the surrogate's primitive.

    Example:
        >>> vanishing_degree(surrogate.ATan(alpha=2.0), torch.tensor([0.0, 1 / torch.pi])).tolist()
        [0.0, 0.5]
    """
    near = distance.abs()
    degree: Tensor = function.primitive_function(near, alpha=function.alpha) - function.primitive_function(-near, alpha=function.alpha)
    return degree


def unseen(function: surrogate.SurrogateFunctionBase, distance: Tensor) -> Tensor:
    """Return where the surrogate's slope is below 1e-3 of its slope at the threshold.

    Example:
        >>> unseen(surrogate.ATan(alpha=2.0), torch.tensor([0.0, 9.0, 11.0])).tolist()
        [False, False, True]
    """
    with torch.enable_grad():
        d = torch.cat([distance.flatten(), distance.new_zeros(1)]).requires_grad_()
        (slope,) = torch.autograd.grad(function(d).sum(), d)
    return (slope[:-1] < UNSEEN_SLOPE * slope[-1]).view_as(distance)

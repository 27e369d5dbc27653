"""How far membranes are from the threshold, and what a surrogate gradient still sees there."""

from copy import copy
from functools import partial
from typing import Any

import torch
from spikingjelly.activation_based import functional, surrogate
from torch import Tensor, nn

from snn_sparsity.measure.operations import WHOLE_SEQUENCES
from snn_sparsity.validation import InputError

FAR = 1e100
"""Where a primitive is as good as at infinity; its square, which some take, is a number too."""
UNSEEN_SLOPE = 1e-3
"""A neuron counts as unseen where the surrogate's slope is below this share of its maximum."""


def membrane_distance(node: nn.Module, x: Tensor) -> Tensor:
    """Return how far the potential is from the threshold before the reset, as the neuron's surrogate sees it, from rest.

    Usually ``u[t] - V_th``; for surrogates that see the potential in thresholds, ``u[t] / V_th - 1``.

    Args:
        node: A neuron of SpikingJelly's with a surrogate, such as ``IFNode``, ``LIFNode`` or a ``LeakyNode``; it is left as it is.
        x: [T,N,...], its input.

    Returns:
        Of the shape of x.

    Raises:
        InputError: For a neuron that does not ask one surrogate once a step.

    Example:
        >>> from spikingjelly.activation_based import neuron
        >>> membrane_distance(neuron.IFNode(v_threshold=1.0), torch.tensor([[0.75], [0.75], [0.25]])).flatten().tolist()
        [-0.25, 0.5, -0.75]
    """
    whole = isinstance(node, WHOLE_SEQUENCES)
    if not isinstance(getattr(node, "surrogate_function", None), nn.Module) or not (whole or hasattr(node, "single_step_forward")):
        raise InputError(f"{type(node).__name__} has no surrogate gradient that could vanish")
    # The same weights, with a memory and a surrogate of its own.
    twin: Any = copy(node)
    for own in {"_modules", "_memories", "_memories_rv"} & vars(node).keys():
        twin.__dict__[own] = dict(getattr(node, own))
    seen: list[Tensor] = []
    twin.surrogate_function = _Watched(twin.surrogate_function, seen)
    functional.reset_net(twin)
    with torch.no_grad():
        if whole:
            # Without the node's hooks, which may be what asks.
            type(twin).forward(twin, x)
            # Of all steps at once, or step by step.
            seen = [step for distance in seen for step in distance.reshape(-1, *x.shape[1:])]
        else:
            for current in x:
                twin.single_step_forward(current)
    if len(seen) != len(x) or any(distance.shape != x.shape[1:] for distance in seen):
        raise InputError(
            f"{type(node).__name__} does not ask its surrogate once a time step: how far it is from the threshold is not known"
        )
    return torch.stack(seen)


class _Watched(nn.Module):
    """A spike function that notes what it is asked about."""

    def __init__(self, spike: nn.Module, seen: list[Tensor]) -> None:
        super().__init__()
        self.spike, self.seen = spike, seen

    def forward(self, distance: Tensor) -> Tensor:
        self.seen.append(distance)
        spikes: Tensor = self.spike(distance)
        return spikes


def vanishing_degree(function: nn.Module, distance: Tensor) -> Tensor:
    """Return the share of the surrogate's area within the distance, ``G(d) = P(|d|) - P(-|d|)``, P its primitive, from 0 to 1.

    Args:
        function: A surrogate of SpikingJelly's with an area of 1, or one that says its ``area_within`` a distance itself.
        distance: Of any shape.

    Raises:
        InputError: For another one, such as ``NonzeroSignLogAbs``, whose area is infinite.

    Example:
        >>> vanishing_degree(surrogate.ATan(alpha=2.0), torch.tensor([0.0, 1 / torch.pi])).tolist()
        [0.0, 0.5]
    """
    near = distance.abs()
    if hasattr(function, "area_within"):
        known: Tensor = function.area_within(near)  # type: ignore[operator]  # ours and SpikingJelly's alike
        return known
    unknown = InputError(f"the area of {type(function).__name__}'s slope is not known to be 1")
    if not isinstance(function, surrogate.SurrogateFunctionBase):
        raise unknown
    primitive = partial(function.primitive_function, **function._sg_params)
    try:
        ends = primitive(near.new_tensor([-FAR, FAR], dtype=torch.float64))
    except NotImplementedError:
        raise unknown from None
    if not torch.allclose(ends, ends.new_tensor([0.0, 1.0])):
        raise unknown
    return primitive(near) - primitive(-near)


def unseen(function: nn.Module, distance: Tensor) -> Tensor:
    """Return where the surrogate's slope is below 1e-3 of its slope at the threshold.

    Example:
        >>> unseen(surrogate.ATan(alpha=2.0), torch.tensor([0.0, 9.0, 11.0])).tolist()
        [False, False, True]
    """
    with torch.enable_grad():
        d = torch.cat([distance.flatten(), distance.new_zeros(1)]).requires_grad_()
        (slope,) = torch.autograd.grad(function(d).sum(), d)
    return (slope[:-1] < UNSEEN_SLOPE * slope[-1]).view_as(distance)

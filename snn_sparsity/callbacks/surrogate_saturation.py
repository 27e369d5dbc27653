"""How much of each neuron layer its surrogate gradient still sees."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from spikingjelly.activation_based import neuron, surrogate
from torch import Tensor, nn

from snn_sparsity.callbacks.pass_probe import PassProbe, Values
from snn_sparsity.checks import InputError
from snn_sparsity.operations import Operation, operations

UNSEEN_SLOPE = 1e-3
"""A neuron counts as unseen where the surrogate's slope is below this share of its maximum."""


@dataclass(kw_only=True, eq=False)
class SurrogateSaturation(PassProbe):
    """Membrane distance, vanishing degree and firing of every neuron layer, over all neurons and time steps.

    With d = u - V_th before the reset and surrogate sg: vanishing degree ``G(d) = integral of sg over [-|d|, |d|]``, for ATan
    ``(2/pi) arctan(pi alpha |d| / 2)`` (arXiv 2512.22522): 0 where the surrogate passes gradients best, 1 where it passes none.

    | key | meaning | range |
    |---|---|---|
    | ``surrogate_distance/<NN>_<path>`` | mean of abs(d) | thresholds, for V_th 1 |
    | ``surrogate_unseen/<NN>_<path>`` | share with a slope below 1e-3 of the largest | [0,1] |
    | ``surrogate_vanishing/<NN>_<path>`` | mean vanishing degree | [0,1] |
    | ``surrogate_firing_rate/<NN>_<path>`` | spikes per neuron and time step | [0,1] |
    | ``surrogate_silent/<NN>_<path>``, ``surrogate_always/<NN>_<path>`` | neurons that fire at no step, at every step | [0,1] |

    See :class:`PassProbe` for the arguments.

    Raises:
        InputError: In a run, for a neuron that is not integrate-and-fire.
    """

    @contextmanager
    def watching(self, network: nn.Module) -> Iterator[Callable[[], Values]]:
        """Look at every neuron layer's input and output in the forward pass."""
        values: Values = {}
        with ExitStack() as hooks:
            for operation in operations(network, ["neuron"]):
                hooks.callback(operation.module.register_forward_hook(_look(operation, values)).remove)
            yield lambda: values


def _look(operation: Operation, values: Values) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        with torch.no_grad():
            distance = membrane_distance(module, inputs[0].detach())
            spikes = output.detach()
            statistics = {
                "distance": distance.abs(),
                "unseen": unseen(module.surrogate_function, distance).float(),
                "vanishing": vanishing_degree(module.surrogate_function, distance),
                "firing_rate": spikes,
                "silent": (spikes == 0).all(0, keepdim=True).float(),
                "always": (spikes > 0).all(0, keepdim=True).float(),
            }
        for name, statistic in statistics.items():
            values[f"surrogate_{name}/{operation.depth:02d}_{operation.path}"] = statistic.transpose(0, 1).flatten(1).mean(1)

    return note


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
        raise InputError(f"SurrogateSaturation knows integrate-and-fire neurons (IFNode) only, this is {type(node).__name__}")
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

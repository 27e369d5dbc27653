"""How much of each neuron layer its surrogate gradient still sees."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from snn_sparsity.measure import names
from snn_sparsity.measure.layout import Layout
from snn_sparsity.measure.operations import Operation, operations, takes_all_steps
from snn_sparsity.measure.saturation import membrane_distance, unseen, vanishing_degree
from snn_sparsity.probes.pass_probe import PassProbe, Values
from snn_sparsity.validation import InputError


@dataclass(kw_only=True, eq=False)
class SurrogateSaturation(PassProbe):
    """Membrane distance, vanishing degree and firing of every neuron layer, over all neurons and time steps.

    With d = u - V_th before the reset (``u / V_th - 1`` where the surrogate sees that) and a surrogate sg whose area is scaled to 1:
    vanishing degree ``G(d) = integral of sg over [-|d|, |d|]``, for ATan
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
        InputError: In a run, for a neuron whose distance, or a surrogate whose area, is not known; an infinite area is none.
    """

    @contextmanager
    def watching(self, network: nn.Module, layout: Layout) -> Iterator[Callable[[], Values]]:
        """Look at every neuron layer's input and output in the forward pass."""
        values: Values = {}

        def note(operation: Operation, module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if f"{names.SURROGATE_SILENT}/{operation.place}" in values:
                raise InputError(f"neuron {operation.path!r} ran more than once in one forward pass: it must run all time steps together")
            with torch.no_grad():
                # In single-step mode all it sees is one step, also where a SeqToANNContainer hands it several.
                steps = inputs[0] if takes_all_steps(module) else inputs[0].unsqueeze(0)
                distance = layout.time_first(operation, membrane_distance(module, steps).view_as(inputs[0]))
                spikes = layout.time_first(operation, output.detach())
                statistics = {
                    names.SURROGATE_DISTANCE: distance.abs(),
                    names.SURROGATE_UNSEEN: unseen(module.surrogate_function, distance).float(),
                    names.SURROGATE_VANISHING: vanishing_degree(module.surrogate_function, distance),
                    names.SURROGATE_FIRING_RATE: spikes,
                    names.SURROGATE_SILENT: (spikes == 0).all(0, keepdim=True).float(),
                    names.SURROGATE_ALWAYS: (spikes > 0).all(0, keepdim=True).float(),
                }
            for what, statistic in statistics.items():
                values[f"{what}/{operation.place}"] = statistic.transpose(0, 1).flatten(1).mean(1)

        with ExitStack() as hooks:
            for operation in operations(network, ["neuron"]):
                hooks.callback(operation.module.register_forward_hook(partial(note, operation)).remove)
            yield lambda: values

"""What an image costs: multiplications, synaptic operations, and an estimate of the energy."""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from spikingjelly.activation_based.op_counter import DispatchCounterMode, FlopCounter, SynOpCounter, estimate_simple_energy
from torch import Tensor

from snn_sparsity.batch import SpikeBatch
from snn_sparsity.measure.operations import kind_of
from snn_sparsity.probes.base import Probe, ProbeContext


@dataclass(kw_only=True, eq=False)
class SynapticOperations(Probe):
    """Count operations per image with SpikingJelly's ``op_counter``; the network is run image by image.

    | key | meaning | unit |
    |---|---|---|
    | ``<name>/flops`` | floating-point operations of the network run densely | per image |
    | ``<name>/synops`` | synaptic operations: one per spike and outgoing connection | per image |
    | ``<name>/firing_rate`` | spikes of all neurons, per neuron and time step; left out without neurons | [0,1] |
    | ``<name>/energy`` | SpikingJelly's ``estimate_simple_energy`` (Horowitz 2014, 45 nm, float32) | pJ per image |

    What is counted is what is run: convolutions whose output map is 1x1 run on their reachable taps alone.

    Args:
        max_samples: A few images say enough: the counts hardly differ.
    """

    max_samples: int | None = 4

    def measure(self, context: ProbeContext, batch: SpikeBatch) -> dict[str, Tensor]:
        """Count, image by image."""
        counts = [self._count(context, batch.spikes[:, index : index + 1]) for index in range(len(batch.labels))]
        return {name: torch.tensor([count[name] for count in counts], dtype=torch.float64) for name in counts[0]}

    def _count(self, context: ProbeContext, spikes: Tensor) -> dict[str, float]:
        classifier: Any = context.classifier
        flops, synops, fired = FlopCounter(), SynOpCounter(), list[Tensor]()
        with torch.no_grad():
            with ExitStack() as hooks:
                for neuron in (module for module in classifier.modules() if kind_of(module) == "neuron"):
                    hooks.callback(neuron.register_forward_hook(lambda _, inputs, output: fired.append(output.flatten())).remove)
                classifier(spikes)
            with DispatchCounterMode([flops, synops]):
                classifier(spikes)
            report = estimate_simple_energy(classifier, spikes)
        rate = {"firing_rate": float(torch.cat(fired).mean())} if fired else {}
        return {"flops": flops.get_total(), "synops": synops.get_total(), "energy": report.energy_total_pj} | rate

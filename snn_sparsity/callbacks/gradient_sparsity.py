"""Where gradients vanish: zeros and norm of the gradient at the input of every operation."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from snn_sparsity.attacks import PGD, Attack
from snn_sparsity.attacks.base import input_gradient
from snn_sparsity.batch import SpikeBatch
from snn_sparsity.callbacks.probe import Probe, ProbeContext
from snn_sparsity.checks import require_choice
from snn_sparsity.gradients import record_gradients
from snn_sparsity.operations import KINDS, Kind
from snn_sparsity.targets import BatchNormMode, SpikeTarget


@dataclass(kw_only=True, eq=False)
class GradientSparsity(Probe):
    """Zeros and norm of the loss gradient at the input of every operation (the paper's Figures 1 and 3).

    The gradient is that of an image's cross-entropy, taken at its spikes, and flows out of the operation alone.

    | key | meaning | range |
    |---|---|---|
    | ``grad_zero/<kind>/<NN>_<module path>`` | share of entries that are exactly 0 in float32, mean over images | [0,1] |
    | ``grad_norm/<kind>/<NN>_<module path>`` | L2 norm over all time steps, mean over images | nats per unit of input |
    | ``grad_zero_mean/<kind>``, ``grad_norm_mean/<kind>`` | mean over the operations of a kind | |

    The network's own input is the operation ``input/00_input``. Names carry ``_adversarial`` and ``_batchnorm_batch`` after
    ``zero`` or ``norm`` where the setting is not the default, so that two protocols never share a curve.

    Args:
        kinds: Kinds of operations: conv, bn, neuron, pool, linear.
        at: ``clean`` spikes, or spikes attacked first (``adversarial``).
        attack: The attack for ``adversarial``, in spike space; null is PGD with the paper's numbers.
        batch_norm: ``eval`` or ``batch``.

    Raises:
        InputError: For a value not allowed; in a run, if the network has no operation of these kinds.
    """

    kinds: tuple[Kind, ...] = KINDS
    at: Literal["clean", "adversarial"] = "clean"
    attack: Attack | None = None
    batch_norm: BatchNormMode = "eval"

    def __post_init__(self) -> None:
        for kind in self.kinds:
            require_choice("kinds", kind, KINDS)
        require_choice("at", self.at, ("clean", "adversarial"))
        require_choice("batch_norm", self.batch_norm, ("eval", "batch"))
        super().__post_init__()

    def measure(self, context: ProbeContext, batch: SpikeBatch) -> dict[str, Tensor]:
        """Record one backward pass."""
        target = SpikeTarget(context.classifier, self.batch_norm)
        x = batch.spikes.transpose(0, 1)
        if self.at == "adversarial":
            x = (self.attack or PGD())(target, x, batch.labels, context.generator)
        network: Any = context.classifier.network
        with record_gradients(network, self.kinds) as record:
            input_gradient(target.logits, x, batch.labels)
        values = {}
        for operation in record.operations:
            values[f"zero/{operation.tag}"], values[f"norm/{operation.tag}"] = record.values[operation.path]
        return values

    def summarise(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Average over images, then over the operations of a kind."""
        means = super().summarise(values)
        by_kind = defaultdict(list)
        for name, mean in means.items():
            statistic, kind, _ = name.split("/", 2)
            by_kind[f"{statistic}_mean/{kind}"].append(mean)
        return means | {name: torch.stack(parts).mean() for name, parts in by_kind.items()}

    def tag(self, value_name: str) -> str:
        """Return ``grad_zero/...`` or ``grad_norm/...``, with the setting where it is not the default."""
        statistic, rest = value_name.split("/", 1)
        setting = ("_adversarial" if self.at == "adversarial" else "") + ("_batchnorm_batch" if self.batch_norm == "batch" else "")
        return f"grad_{statistic}{setting}/{rest}"

    def describe(self) -> str:
        """Return point, space and protocol."""
        return f"{self.at} spikes, BatchNorm {self.batch_norm}"

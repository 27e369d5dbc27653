"""Where gradients vanish: zeros and norm of the gradient at the input of every operation."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from snn_sparsity.measure.gradients import record_gradients, zeros_and_norm
from snn_sparsity.measure.layout import Layout
from snn_sparsity.measure.names import GRAD_NORM, GRAD_TINY, GRAD_ZERO, mean_of
from snn_sparsity.measure.operations import KINDS, Kind, Operation
from snn_sparsity.measure.sparsity import tiny_fraction
from snn_sparsity.measure.surrogates import SURROGATE, record_surrogates
from snn_sparsity.probes.pass_probe import PassProbe, Values
from snn_sparsity.validation import require_choice


@dataclass(kw_only=True, eq=False)
class GradientSparsity(PassProbe):
    """Zeros and norm of the loss gradient at the input of every operation (the paper's Figures 1 and 3).

    The gradient is that of an image's cross-entropy, taken at its spikes, and flows out of the operation alone.

    | key | meaning | range |
    |---|---|---|
    | ``grad_zero/<kind>/<NN>_<module path>`` | share of entries that are exactly 0 in float32, mean over images | [0,1] |
    | ``grad_tiny/<kind>/<NN>_<module path>`` | share of entries of 1e-30 or less: exact zeros, and dead channels | [0,1] |
    | ``grad_norm/<kind>/<NN>_<module path>`` | L2 norm over all time steps, mean over images | nats per unit of input |
    | ``grad_zero_mean/<kind>`` and so on | mean over the operations of a kind but ``pool`` | |

    Whether a channel that weight decay has killed counts as exact zeros depends on the machine (a GPU keeps denormal numbers);
    ``grad_tiny`` does not. Poolings are never averaged: at least 75 % zeros at the stem's max pooling and none at the final average
    pooling would make 38 %, which is no operation's.

    The kind ``surrogate`` is the gradient at the surrogate's input, ``dL/d(u[t] - V_th)``, once per time step: what a hook of the
    paper's code sees. It bears depth and path of its neuron, whose own input (``neuron``) also gathers what later steps send back. The
    network's own input is the operation ``input/00_input``. ``_adversarial`` and ``_batchnorm_batch`` follow the first part of a name
    where the setting is not the default.

    Args:
        kinds: Kinds of operations: conv, bn, neuron, pool, linear, and surrogate. Neurons that call no surrogate of their own are left
            out of the last.

    Raises:
        InputError: For a value not allowed; in a run, if the network has no operation of these kinds.
    """

    kinds: tuple[Kind | Literal["surrogate"], ...] = KINDS

    def __post_init__(self) -> None:
        for kind in self.kinds:
            require_choice("kinds", kind, (*KINDS, SURROGATE))
        super().__post_init__()

    @contextmanager
    def watching(self, network: nn.Module, layout: Layout) -> Iterator[Callable[[], Values]]:
        """Record every operation."""
        kinds = [kind for kind in KINDS if kind in self.kinds]
        with ExitStack() as hooks:
            record = hooks.enter_context(record_gradients(network, kinds, _statistics, layout)) if kinds else None
            surrogates = hooks.enter_context(record_surrogates(network)) if SURROGATE in self.kinds else []

            def found() -> Iterator[tuple[str, tuple[Tensor, Tensor, Tensor]]]:
                if record is not None:
                    yield from ((operation.tag, record.values[operation.path]) for operation in record.operations)
                for each in surrogates:
                    if each.values is not None and each.tiny is not None:
                        yield each.tag, (*each.values, each.tiny)

            yield lambda: {
                f"{statistic}/{tag}": value
                for tag, values in found()
                for statistic, value in zip((GRAD_ZERO, GRAD_NORM, GRAD_TINY), values, strict=True)
            }

    def summarise(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Average over images, then over the operations of a kind."""
        return with_kind_means(super().summarise(values))


def _statistics(operation: Operation, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return *zeros_and_norm(operation, gradient), tiny_fraction(gradient, batch_dim=1)


def with_kind_means(means: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add the mean over the operations of each kind: ``a/conv/01_x`` and ``a/conv/04_y`` give ``a_mean/conv``.

    Poolings get none: the stem's and the final one have nothing in common.

    Example:
        >>> means = {"a/conv/01_x": torch.tensor(1.0), "a/conv/04_y": torch.tensor(3.0), "a/pool/02_z": torch.tensor(0.5)}
        >>> {name: value.item() for name, value in with_kind_means(means).items() if name not in means}
        {'a_mean/conv': 2.0}
    """
    by_kind = defaultdict(list)
    for name, mean in means.items():
        statistic, *between, kind, _ = name.split("/")
        if kind == "pool":
            continue
        by_kind["/".join([mean_of(statistic), *between, kind])].append(mean)
    return means | {name: torch.stack(parts).mean() for name, parts in by_kind.items()}

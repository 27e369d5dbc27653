"""The zeros that the paper's text gives of its Figures 1 and 3, with what each can mean, and the runs' own beside them."""

import math
from collections.abc import Sequence

from snn_sparsity.documents.blocks import MISSING, Cell, Table, words
from snn_sparsity.measure.names import GRAD_TINY, GRAD_ZERO, ZERO_ORIGIN, mean_of
from snn_sparsity.reproduction.paper import DATASETS, network_name, paper
from snn_sparsity.reproduction.paper_rows import marked
from snn_sparsity.reproduction.results import Result
from snn_sparsity.runs.metrics import Number

MODES = {"": "BatchNorm eval", "_batchnorm_batch": "BatchNorm batch"}


def figure_numbers() -> Table:
    """Return the paper's numbers of zeros, their place, and what each can and cannot be."""
    header = ["the paper, %", "it says", "where", "can be", "cannot be"]
    rows = [
        [
            Cell(f"{each['value']:.2f}", (f"paper_tables.yaml, figures, row {place}",)),
            *words(each[name] for name in ("says", "place", "can", "cannot")),
        ]
        for place, each in enumerate(paper()["figures"], 1)
    ]
    return Table("Figures 1 and 3, the paper", header, rows, numbers=header[:1])


def zeros_at_poolings(result: Result, suffix: str = "") -> list[Number]:
    """Return the zeros at each pooling's input at the run's last measured epoch, the stem's first."""
    names = sorted(name for name in result.record.metrics if name.startswith(f"{GRAD_ZERO}{suffix}/pool/"))
    return [number for name in names if (number := result.record.last(name))]


def zero_table(results: Sequence[Result]) -> Table:
    """Return each run's zeros at its poolings, the stem's BatchNorm and its surrogates, each by itself."""
    header = ["run", "mode", "stem's pooling, %", "final pooling, %", "stem's BatchNorm, %", "surrogates, mean, %"]
    rows = []
    for result in results:
        for suffix, mode in MODES.items():
            pools = zeros_at_poolings(result, suffix)
            if pools:
                stem = result.record.last(f"{GRAD_ZERO}{suffix}/bn/02_bn1")
                numbers = [
                    pools[0],
                    pools[-1] if len(pools) > 1 else None,
                    stem,
                    result.record.last(f"{mean_of(GRAD_ZERO)}{suffix}/surrogate"),
                ]
                rows.append([marked([result]), *words([mode]), *map(_percent, numbers)])
    return Table("Figures 1 and 3, here", header, rows, numbers=header[2:])


SHARES = (1 / 4, 1 / 2, 3 / 4, 1.0)
"""Of a run's measured epochs."""
GROWING = {
    "at the surrogate": f"{mean_of(GRAD_ZERO)}/surrogate",
    "at the neuron": f"{mean_of(GRAD_ZERO)}/neuron",
    "at the neuron, 1e-30 or less": f"{mean_of(GRAD_TINY)}/neuron",
    "at the neuron, of a whole channel": f"{mean_of(ZERO_ORIGIN)}/channel/neuron",
}
"""What grows in a long training, by its logged name."""
SILENT = (
    "Zeros of the gradient, a mean over all layers of neurons, as training goes on: they grow where channels fall silent, whose weights "
    "then have no gradient, and nothing but weight decay to change them."
)


def silence_table(results: Sequence[Result]) -> Table:
    """Return zeros at the neurons (%, BatchNorm in eval mode) after a quarter, half, three quarters and all of each run's epochs.

    Of runs of at least four epochs, a line for each name of ``GROWING`` that they logged.
    """
    header = ["run", "dataset", "network", "weight decay", "epochs", "zeros", *(f"after {share:.0%}" for share in SHARES)]
    rows = []
    for result in results:
        _, network, depth, pool = result.record.setting
        for what, name in GROWING.items():
            curve = result.record.metrics.get(name, {})
            epochs = sorted(curve)
            if len(epochs) < len(SHARES):
                continue
            cells = [_percent(curve[epochs[math.ceil(share * len(epochs)) - 1]]) for share in SHARES]
            own = result.record.config.get("optimizer")
            decay = ((own.get("init_args") or {}) if own else result.record.config["model"]).get("weight_decay")
            about = words([
                DATASETS.get(result.record.dataset, result.record.dataset), f"{network_name(network, depth)} {pool}",
                "-" if decay is None else f"{decay:g}", len(epochs), what,
            ])  # fmt: skip
            rows.append([marked([result]), *about, *cells])
    return Table("Zeros at the neurons, here", header, rows, numbers=header[6:])


def _percent(number: Number | None) -> Cell:
    return MISSING if number is None else Cell(f"{100 * number.value:.2f}", (number,))

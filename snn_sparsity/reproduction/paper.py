"""The paper's own numbers, from ``paper_tables.yaml`` and nowhere else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

COLUMNS = ("fgsm", "pgd", "clean")
DATASETS = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
NETWORKS = {"SEWResNet": "SEW-ResNet", "SpikingResNet": "Spiking-ResNet"}


@dataclass(frozen=True)
class PaperRow:
    """A row of one of the paper's tables.

    Attributes:
        table: 1, 2 or 3.
        dataset: ``cifar10`` or ``cifar100``.
        quoted: The row's name where the paper quotes it from others; else empty.
        like: Of quoted rows, the defence and how the network's name begins of runs that are put beside it.
        network: Class of the network; empty for quoted rows.
        depth: Its depth; 0 for quoted rows.
        pool: ``max`` or ``avg``; empty for quoted rows.
        accuracy: By column (``fgsm``, ``pgd``, ``clean``), in percent.
        printed: Table 3's change from max pooling as the paper prints it, in points; else empty.
    """

    table: int
    dataset: str
    quoted: str
    like: Sequence[str]
    network: str
    depth: int
    pool: str
    accuracy: Mapping[str, float]
    printed: Mapping[str, float]

    @property
    def setting(self) -> tuple[str, str, int, str]:
        """What a run must be, to be put beside this row."""
        return self.dataset, self.network, self.depth, self.pool


@cache
def paper() -> dict[str, Any]:
    """Return everything ``paper_tables.yaml`` holds."""
    content: dict[str, Any] = yaml.safe_load(files("snn_sparsity.reproduction").joinpath("paper_tables.yaml").read_text(encoding="utf-8"))
    return content


def paper_rows(table: int) -> list[PaperRow]:
    """Return the rows of a table, in the paper's order.

    Example:
        >>> paper_rows(2)[4].setting, paper_rows(2)[4].accuracy["pgd"]
        (('cifar10', 'SEWResNet', 50, 'max'), 40.55)
    """
    return [
        PaperRow(
            table, row["dataset"], row.get("quoted", ""), row.get("like", ()),
            row.get("network", ""), row.get("depth", 0), row.get("pool", ""),
            {column: float(row[column]) for column in COLUMNS}, row.get("printed", {}),
        )
        for row in paper()["tables"][table]["rows"]
    ]  # fmt: skip


def max_pooled(row: PaperRow) -> PaperRow:
    """Return Table 2's row of the same network with max pooling."""
    wanted = (row.dataset, row.network, row.depth, "max")
    return next(other for other in paper_rows(2) if other.setting == wanted)


def network_name(network: str, depth: int) -> str:
    """Return a network's name as the paper writes it.

    Example:
        >>> network_name("SEWResNet", 18)
        'SEW-ResNet18'
    """
    return f"{NETWORKS.get(network, network)}{depth or ''}"

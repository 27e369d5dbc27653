"""Tables as the report's three forms share them: text, and where each number comes from."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from snn_sparsity.runs.metrics import Accuracy, Number


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: As it is shown.
        sources: Where its numbers come from: lines of metrics.csv, or words for what does not come from a run.
    """

    text: str
    sources: tuple[Number | str, ...] = ()


@dataclass(frozen=True)
class Table:
    """A table of the report.

    Attributes:
        name: By which the CSV file calls it.
        header: Titles of the columns.
        rows: Cells, as many as there are titles.
    """

    name: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    @property
    def texts(self) -> list[list[str]]:
        """The cells' text."""
        return [[cell.text for cell in row] for row in self.rows]


MISSING = Cell("-")


def words(texts: Iterable[object]) -> list[Cell]:
    """Return cells without numbers of a run."""
    return [Cell(str(text)) for text in texts]


def measured(accuracy: Accuracy | None, text: str | None = None) -> Cell:
    """Return the cell of an accuracy, with the lines it comes from; in other words than its own, where they are given."""
    return MISSING if accuracy is None else Cell(text or str(accuracy), tuple(accuracy.numbers))

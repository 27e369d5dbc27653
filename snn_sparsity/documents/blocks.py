"""What pages and their twins in Markdown are made of. Text is plain; how each part looks is said in ``templates/`` alone."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from matplotlib import style
from matplotlib.figure import Figure

from snn_sparsity.figures.drawing import STYLE, png
from snn_sparsity.runs.metrics import Accuracy, Number


@dataclass(frozen=True)
class Heading:
    """A heading.

    Attributes:
        text: What it says.
        level: 2 or more; a page's title is 1.
        anchor: By which links find it; none without.
    """

    kind: ClassVar[str] = "heading"
    text: str
    level: int = 2
    anchor: str = ""


@dataclass(frozen=True)
class Bullets:
    """A list."""

    kind: ClassVar[str] = "bullets"
    items: Sequence[str]


@dataclass(frozen=True)
class Card:
    """A framed box: what it is about, what must not be overlooked, and a sentence."""

    kind: ClassVar[str] = "card"
    label: str
    headline: str
    text: str


@dataclass(frozen=True)
class Link:
    """A link to a path beside the page, an address, or ``#anchor``; as a block, on a line of its own."""

    kind: ClassVar[str] = "link"
    text: str
    target: str


@dataclass(frozen=True)
class Picture:
    """A figure.

    Attributes:
        name: Its file's stem.
        draw: Draws it.
        caption: What it shows; for who cannot see it, too.
    """

    kind: ClassVar[str] = "picture"
    name: str
    draw: Callable[[], Figure]
    caption: str

    @cached_property
    def figure(self) -> Figure:
        """The figure, drawn once."""
        with style.context(STYLE, after_reset=True):
            return self.draw()

    @cached_property
    def png(self) -> bytes:
        """The figure as a PNG file, rendered once for the page and for the file beside it."""
        return png(self.figure)

    @property
    def width(self) -> int:
        """Its own size in CSS pixels, 96 an inch: shown so where there is room, else down to 60 % of it; it scrolls below that."""
        return round(96 * self.figure.get_figwidth())


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: As it is shown.
        sources: Where its numbers come from: lines of metrics.csv, or words for what does not come from a run.
        tone: ``bad``, ``doubt`` or ``faint``, for what is to be seen at a glance.
        links: Shown instead of the text where there are links.
    """

    text: str
    sources: tuple[Number | str, ...] = ()
    tone: str = ""
    links: tuple[Link, ...] = ()


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        name: By which a CSV file calls it.
        header: Titles of the columns.
        rows: Cells, as many as there are titles.
        numbers: Titles of the columns that hold numbers; they are flush right.

    Raises:
        ValueError: If a row is longer or shorter than the header.
    """

    kind: ClassVar[str] = "table"
    name: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    numbers: Collection[str] = ()

    def __post_init__(self) -> None:
        if wrong := [row for row in self.rows if len(row) != len(self.header)]:
            raise ValueError(f"table {self.name!r} has {len(self.header)} columns and a row of {len(wrong[0])} cells")

    @property
    def texts(self) -> list[list[str]]:
        """The cells' text."""
        return [[cell.text for cell in row] for row in self.rows]


Block = str | Heading | Bullets | Card | Link | Picture | Table
"""A str is a paragraph."""

MISSING = Cell("-")


def words(texts: Iterable[object]) -> list[Cell]:
    """Return cells without numbers of a run."""
    return [Cell(str(text)) for text in texts]


def accuracy_cell(accuracy: Accuracy | None, text: str | None = None) -> Cell:
    """Return the cell of an accuracy, with the lines it comes from; in other words than its own, where they are given."""
    return MISSING if accuracy is None else Cell(text or str(accuracy), tuple(accuracy.numbers))

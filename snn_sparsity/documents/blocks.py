"""What a report is made of, and how each part looks on a page and in Markdown."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from matplotlib import style
from matplotlib.figure import Figure

from snn_sparsity.documents import page
from snn_sparsity.documents.cells import Table
from snn_sparsity.figures.drawing import STYLE


@dataclass(frozen=True)
class Picture:
    """A figure of the report.

    Attributes:
        name: Its file's stem.
        draw: Draws it.
        caption: What it shows.
    """

    name: str
    draw: Callable[[], Figure]
    caption: str

    @cached_property
    def figure(self) -> Figure:
        """The figure, drawn once."""
        with style.context(STYLE, after_reset=True):
            return self.draw()


@dataclass(frozen=True)
class Heading:
    """A heading; a run's begins with its mark and is where links to the run lead."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Link:
    """A link on a line of its own, to a path from the report's folder on."""

    text: str
    target: str


Block = Heading | Link | Picture | Table | str
"""What a report is made of; a str is a paragraph."""


def as_html(block: Block) -> str:
    """Return a block as a part of a page."""
    if isinstance(block, Heading):
        return page.heading(block.text, block.level)
    if isinstance(block, Link):
        return page.link(block.text, block.target)
    if isinstance(block, Picture):
        return page.figure(block.figure, block.caption)
    return page.table(block.header, block.texts) if isinstance(block, Table) else page.paragraph(block)


def as_markdown(block: Block) -> str:
    """Return a block in Markdown."""
    if isinstance(block, Heading):
        return f"{'#' * block.level} {page.markdown_text(block.text)}"
    if isinstance(block, Link):
        return page.markdown_link(block.text, block.target)
    if isinstance(block, Picture):
        return f"![{page.markdown_text(block.caption)}](figures/{block.name}.png)"
    return page.markdown_table(block.header, block.texts) if isinstance(block, Table) else page.markdown_text(block)


def anchored_html(text: str) -> str:
    """Turn the marks of runs, ``[R1]``, into links to their headings; blocks take plain text, so that this comes last."""
    text = re.sub(r"<h3>\[R(\d+)\]", r'<h3 id="R\1">R\1', text)
    linked = re.compile(r"\[R(\d+)\]")
    # Between tags alone, never in an attribute.
    return re.sub(r">[^<>]+<", lambda words: linked.sub(r'<a href="#R\1">R\1</a>', words[0]), text)


def anchored_markdown(text: str) -> str:
    """Turn the marks of runs, escaped as Markdown has them, into links to their headings."""
    text = re.sub(r"(?m)^### \\\[R(\d+)\\\]", r'### <a id="R\1"></a>R\1', text)
    return re.sub(r"\\\[R(\d+)\\\]", r"[R\1](#R\1)", text)

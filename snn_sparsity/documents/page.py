r"""Blocks as a page that needs nothing but itself (style and pictures inside, no script), and as Markdown.

Example:
    >>> from snn_sparsity.documents.blocks import Table, words
    >>> print(markdown("T", ["a *b*", Table("", ["attack", "%"], [words(["a|b", 12.5])], numbers=["%"])]))
    # T
    <BLANKLINE>
    a \*b\*
    <BLANKLINE>
    | attack | % |
    |---|--:|
    | a\|b | 12.5 |
    <BLANKLINE>
"""

import base64
import html as entities
import io
import re
from collections.abc import Iterable

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from snn_sparsity.documents.blocks import Block


def html(title: str, blocks: Iterable[Block]) -> str:
    """Return a whole page: nothing is loaded from anywhere, light or dark as the reader prefers; the same blocks give the same bytes."""
    return _encodable(_HTML.get_template("page.html").render(title=title, blocks=list(blocks)))


def markdown(title: str, blocks: Iterable[Block], figures: str = "") -> str:
    """Return the same in Markdown.

    Args:
        title: First heading.
        blocks: What follows.
        figures: Folder with the pictures as PNG files, beside the document; they are left out without one.
    """
    lines = _MARKDOWN.get_template("page.md").render(title=title, blocks=list(blocks), figures=figures).splitlines()
    return _encodable("\n".join(line.rstrip() for line in lines) + "\n")


def fragment(blocks: Iterable[Block]) -> str:
    """Return blocks in Markdown without a heading or pictures, to stand in another document.

    Example:
        >>> print(fragment(["One sentence.", "Another."]))
        One sentence.
        <BLANKLINE>
        Another.
        <BLANKLINE>
    """
    return markdown("", blocks).partition("\n")[2].strip("\n") + "\n"


def markdown_text(text: str) -> str:
    r"""Return plain text so that Markdown shows it as it is, on one line.

    Example:
        >>> markdown_text("<b> *x*, snn_sparsity")
        '&lt;b&gt; \\*x\\*, snn_sparsity'
    """
    plain = entities.escape(" ".join(text.split()), quote=False)
    inline = re.sub(r"[\\`*\[\]|~$]|(?<!\w)_|_(?!\w)", r"\\\g<0>", plain)
    # What would begin a heading or a list.
    return re.sub(r"^(\d*)([#+.)-])(?=[# ])", r"\1\\\2", inline)


def _address(target: str) -> Markup:
    """Return a link's target for angle brackets: these alone, a line's end and percent would end the link or begin markup."""
    return Markup(re.sub(r"[<>\\\n\r%]", lambda found: f"%{ord(found[0]):02X}", _encodable(target)))


def _embedded(png: bytes) -> str:
    """Return a PNG file for a page's source: a palette of 256 colours is a third of the bytes."""
    small = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize().save(small, "PNG", optimize=True)
    return base64.b64encode(small.getvalue()).decode("ascii")


def _encodable(text: str) -> str:
    """Replace what a path may hold and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")


_LOADER = PackageLoader("snn_sparsity.documents")
_HTML = Environment(loader=_LOADER, autoescape=True, undefined=StrictUndefined)
_HTML.filters["embedded"] = _embedded
# What HTML's autoescape is for a page: every text that is printed is made plain, except where a template says "safe".
_MARKDOWN = Environment(
    loader=_LOADER, autoescape=False, undefined=StrictUndefined,
    finalize=lambda value: value if isinstance(value, Markup) else markdown_text(str(value)),
)  # fmt: skip
_MARKDOWN.filters["address"] = _address

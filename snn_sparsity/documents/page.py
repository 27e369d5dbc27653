"""Pages that need nothing but themselves: HTML with its style and pictures inside; its tables have a twin in Markdown."""

import base64
import html
import io
import re
from collections.abc import Sequence

from matplotlib import style
from matplotlib.figure import Figure
from PIL import Image

from snn_sparsity.figures.drawing import STYLE

# Pictures stay on white in the dark: their colours are chosen for it.
_CSS = """\
:root { color-scheme: light dark; --text: #1c2126; --faint: #59626b; --line: #d8dde2; --page: #fff; --head: #f1f3f5; --accent: #0060a0;
  --bad: #a83200; --doubt: #7d5700 }
@media (prefers-color-scheme: dark) {
  :root { --text: #e2e6ea; --faint: #a3adb6; --line: #3a424a; --page: #15191d; --head: #20262c; --accent: #6cb6f0;
    --bad: #ff9a6b; --doubt: #e8b84a }
}
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 78rem; padding: 1rem 1rem 4rem; background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { font-size: 1.7rem; line-height: 1.2 } h2 { margin-top: 2.5rem; font-size: 1.3rem } h3 { margin-top: 2rem; font-size: 1.05rem }
p { max-width: 50rem } a { color: var(--accent) }
.table { overflow-x: auto; margin: 1rem 0 }
table { border-collapse: collapse; font-size: .875rem; overflow-wrap: normal }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top }
th { background: var(--head); white-space: nowrap }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
.bad { color: var(--bad); font-weight: 600 } .doubt { color: var(--doubt); font-weight: 600 } .faint { color: var(--faint) }
.short { white-space: nowrap } .long { min-width: 15rem; overflow-wrap: anywhere }
figure { display: inline-block; width: var(--width); max-width: 100%; margin: 1rem 1.5rem 1rem 0; vertical-align: top }
figure div { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; background: #fff }
img { display: block; width: 100%; min-width: calc(.6 * var(--width)); height: auto }
figcaption { margin-top: .4rem; color: var(--faint); font-size: .875rem }
.card { display: inline-block; width: 100%; max-width: 37rem; margin: .5rem .5rem .5rem 0; padding: .6rem 1rem;
  border: 1px solid var(--line); border-left: .4rem solid var(--accent); border-radius: 6px; vertical-align: top }
.card p { margin: .2rem 0 } .card > :first-child { color: var(--faint); font-size: .875rem } .card strong { font-size: 1.15rem }
"""

# A cell that says just this is seen at a glance.
_TONES = {"fail": "bad", "failed": "bad", "vote": "bad", "warn": "doubt", "stopped": "doubt", "skipped": "faint", "not run": "faint"}

# Even a fault in the escaping could then run no script and load nothing.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page(title: str, sections: Sequence[str]) -> str:
    """Return a whole HTML page: no script, nothing loaded from anywhere, light or dark as the reader prefers.

    Args:
        title: Plain text, shown as the first heading too.
        sections: HTML, as the functions below return it.
    """
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_escape(title)}</title>\n<style>\n{_CSS}</style>\n</head>\n<body>\n{heading(title, 1)}",
        *sections,
        "</body>\n</html>\n",
    ]
    return "\n".join(parts)


def heading(text: str, level: int = 2) -> str:
    """Return a heading.

    Example:
        >>> heading("Runs & audits")
        '<h2>Runs &amp; audits</h2>'
    """
    return f"<h{level}>{_escape(text)}</h{level}>"


def paragraph(text: str) -> str:
    """Return a paragraph of plain text."""
    return f"<p>{_escape(text)}</p>"


def bullets(items: Sequence[str]) -> str:
    """Return a list of plain texts."""
    return "<ul>\n" + "\n".join(f"<li>{_escape(item)}</li>" for item in items) + "\n</ul>"


def link(text: str, target: str) -> str:
    """Return a link on a line of its own; ``target`` is a path beside the page or an address."""
    return f'<p><a href="{_escape(target)}">{_escape(text)}</a></p>'


def card(label: str, headline: str, text: str) -> str:
    """Return a framed box: what it is about, what must not be overlooked, and a sentence."""
    return f'<div class="card"><p>{_escape(label)}</p><p><strong>{_escape(headline)}</strong></p><p>{_escape(text)}</p></div>'


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table that scrolls inside a box of its own; columns of numbers are flush right.

    Args:
        header: Plain text, one for each column.
        rows: Plain text, as long as the header.
    """
    numeric = [_is_numeric(column) for column in zip(*rows, strict=True)] or [False] * len(header)
    head = "".join(f"<th{_class(cell, number)}>{_escape(cell)}</th>" for cell, number in zip(header, numeric, strict=True))
    body = ["".join(f"<td{_class(cell, number)}>{_escape(cell)}</td>" for cell, number in zip(row, numeric, strict=True)) for row in rows]
    lines = [f"<thead><tr>{head}</tr></thead>", "<tbody>", *(f"<tr>{row}</tr>" for row in body), "</tbody>"]
    # A box that scrolls must be reachable with the keyboard.
    return '<div class="table" tabindex="0"><table>\n' + "\n".join(lines) + "\n</table></div>"


def figure(figure: Figure, caption: str) -> str:
    """Return a picture (PNG, inside the page) with its caption; the same figure gives the same bytes.

    It is shown in its own size (96 pixels an inch) where there is room, else down to 60 % of it, and scrolls below that.

    Args:
        figure: Any; its width says how wide it is shown.
        caption: Plain text; for who cannot see the picture, too.
    """
    data = base64.b64encode(_png(figure)).decode("ascii")
    width = round(96 * figure.get_figwidth())
    picture = f'<div tabindex="0"><img alt="{_escape(caption)}" src="data:image/png;base64,{data}"></div>'
    return f'<figure style="--width: {width}px">{picture}<figcaption>{_escape(caption)}</figcaption></figure>'


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    r"""Return the table in Markdown; columns of numbers are flush right.

    Args:
        header: Plain text, one for each column.
        rows: Plain text, as long as the header.

    Example:
        >>> print(markdown_table(["attack", "%"], [["a|b", "12.5"]]))
        | attack | % |
        |---|--:|
        | a\|b | 12.5 |
    """
    numeric = [_is_numeric(column) for column in zip(*rows, strict=True)] or [False] * len(header)
    lines = [[markdown_text(cell) for cell in row] for row in (header, *rows)]
    ruler = "|" + "|".join("--:" if number else "---" for number in numeric) + "|"
    head, *body = ("| " + " | ".join(cells) + " |" for cells in lines)
    return "\n".join([head, ruler, *body])


def markdown_text(text: str) -> str:
    r"""Return plain text so that Markdown shows it as it is, on one line.

    Example:
        >>> markdown_text("<b> *x*, snn_sparsity")
        '&lt;b&gt; \\*x\\*, snn_sparsity'
    """
    plain = html.escape(" ".join(_encodable(text).split()), quote=False)
    inline = re.sub(r"[\\`*\[\]|~$]|(?<!\w)_|_(?!\w)", r"\\\g<0>", plain)
    # What would begin a heading or a list.
    return re.sub(r"^(\d*)([#+.)-])(?=[# ])", r"\1\\\2", inline)


def markdown_link(text: str, target: str) -> str:
    """Return a link in Markdown to a file, whatever its path holds.

    Example:
        >>> markdown_link("run", "a b/<c>.json")
        '[run](<a b/%3Cc%3E.json>)'
    """
    # Inside angle brackets, these alone would end the link or begin markup.
    quoted = re.sub(r"[<>\\\n\r%]", lambda found: f"%{ord(found[0]):02X}", _encodable(target))
    return f"[{markdown_text(text)}](<{quoted}>)"


def _png(figure: Figure) -> bytes:
    drawn, small = io.BytesIO(), io.BytesIO()
    with style.context(STYLE, after_reset=True):
        figure.savefig(drawn, format="png")
    # A palette of 256 colours is a third of the bytes, and carries no name of the program and no date.
    Image.open(drawn).convert("RGB").quantize().save(small, "PNG", optimize=True)
    return small.getvalue()


def _escape(text: str) -> str:
    return html.escape(_encodable(text))


def _encodable(text: str) -> str:
    """Replace what a path may hold and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _is_numeric(cells: Sequence[str]) -> bool:
    """Tell whether there are numbers in a column and nothing else but gaps."""
    given = [cell for cell in cells if cell.strip("- ")]
    return bool(given) and all(re.fullmatch(r"[-+]?[\d,.]+(e[-+]?\d+)?( ?%)?", cell) for cell in given)


def _class(cell: str, number: bool) -> str:
    width = "number" if number else "long" if len(cell) > 40 else "short" if len(cell) < 28 else ""
    names = " ".join(name for name in (width, _TONES.get(cell)) if name)
    return f' class="{names}"' if names else ""

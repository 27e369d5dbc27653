"""Parts of other documents that are made from the report: between marks that name them."""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote

from snn_sparsity.validation import InputError

OWN_LINK = re.compile(r"(?<!\\)\]\((?=#)")
PART = re.compile(r"(<!-- report: (?P<name>[^>]+?) -->\n).*?(<!-- end of report -->)", re.S)


def filled(text: str, parts: Mapping[str, Callable[[], str]], source: Path, report: Path) -> str:
    """Return a Markdown document with each part between ``<!-- report: NAME -->`` and ``<!-- end of report -->`` made anew.

    Args:
        text: The document.
        parts: Makes each part that there is.
        source: Where the document lies.
        report: The report in Markdown, to which a part's links into it lead.

    Raises:
        InputError: If it names no part, or one that there is not.

    Example:
        >>> document = chr(10).join(["a", "<!-- report: n -->", "old", "<!-- end of report -->"])
        >>> print(filled(document, {"n": "see [R1](#R1)".title}, Path("docs/x.md"), Path("out/report.md")))
        a
        <!-- report: n -->
        See [R1](../out/report.md#R1)<!-- end of report -->
    """
    names = [found["name"] for found in PART.finditer(text)]
    if not names:
        raise InputError(f"{source} has no part to fill: put <!-- report: NAME --> and <!-- end of report --> around it")
    if unknown := [name for name in names if name not in parts]:
        raise InputError(f"{source} asks for {unknown[0]!r}; the report on these runs has {', '.join(parts)}")
    path = quote(Path(os.path.relpath(report.resolve(), source.resolve().parent)).as_posix(), errors="replace")
    return PART.sub(lambda found: found[1] + OWN_LINK.sub(lambda _: f"]({path}", parts[found["name"]]()) + found[3], text)

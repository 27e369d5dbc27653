"""Parts of other documents that are made from the report: between marks that name them."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from snn_sparsity.validation import InputError

PART = re.compile(r"(<!-- report: (?P<name>[^>]+?) -->\n).*?(<!-- end of report -->)", re.S)


def filled(text: str, parts: Mapping[str, Callable[[], str]], source: Path) -> str:
    """Return a Markdown document with each part between ``<!-- report: NAME -->`` and ``<!-- end of report -->`` made anew.

    Args:
        text: The document.
        parts: Makes each part that there is.
        source: Where the document lies, for messages.

    Raises:
        InputError: If it names no part, or one that there is not.

    Example:
        >>> document = chr(10).join(["a", "<!-- report: n -->", "old", "<!-- end of report -->"])
        >>> print(filled(document, {"n": "new".upper}, Path("x.md")))
        a
        <!-- report: n -->
        NEW<!-- end of report -->
    """
    names = [found["name"] for found in PART.finditer(text)]
    if not names:
        raise InputError(f"{source} has no part to fill: put <!-- report: NAME --> and <!-- end of report --> around it")
    if unknown := [name for name in names if name not in parts]:
        raise InputError(f"{source} asks for {unknown[0]!r}; the report on these runs has {', '.join(parts)}")
    return PART.sub(lambda found: found[1] + parts[found["name"]]() + found[3], text)

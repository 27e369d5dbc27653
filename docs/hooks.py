"""What a page on GitHub links to beside ``docs/`` is no part of the site: there it is named, not linked."""

import logging
import re
from pathlib import Path
from typing import Any

LINK = re.compile(r"\[(?P<text>[^\]]+)\]\((?P<path>\.\./[^)#]+)(?P<anchor>#[^)]*)?\)")
LOG = logging.getLogger("mkdocs.hooks")


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Name each file outside ``docs/`` that a page links to; one that is not there is a warning."""
    folder = Path(page.file.abs_src_path).parent

    def named(link: re.Match[str]) -> str:
        target = (folder / link["path"]).resolve()
        if target.is_relative_to(Path(config.docs_dir).resolve()):
            return link[0]
        if not target.exists():
            LOG.warning("%s links to %s, which is not there", page.file.src_path, link["path"])
        if link["anchor"]:  # of a run, by its number in the report: many in a table
            return link["text"]
        return f"{link['text']} (`{target.relative_to(Path(config.docs_dir).resolve().parent)}`)"

    return LINK.sub(named, markdown)

"""The proof as one JSON file, and as one page in HTML and Markdown."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.gpu_proof.claims import Claim
from snn_sparsity.documents import page
from snn_sparsity.documents.blocks import Block, Cell, Heading, Table
from snn_sparsity.runs.files import write_whole

TONES = {"FAIL": "bad", "NOT RUN": "doubt", "MEASURED": "faint"}
HEADER = ["", "claim", "expected", "found"]


def write(out: Path, about: Mapping[str, Any], parts: Mapping[str, Sequence[Claim]]) -> None:
    """Write ``proof.json``, ``proof.html`` and ``proof.md`` into a folder, each whole or not at all.

    Args:
        out: The folder.
        about: What was run, and for how long.
        parts: The claims so far, by part.
    """
    whole = dict(about) | {"counts": counts(parts), "parts": {name: [asdict(claim) for claim in claims] for name, claims in parts.items()}}
    write_whole(out / "proof.json", json.dumps(whole, indent=1) + "\n")
    title = f"GPU proof ({about['device']})"
    write_whole(out / "proof.html", page.html(title, blocks(about, parts)))
    write_whole(out / "proof.md", page.markdown(title, blocks(about, parts)))


def counts(parts: Mapping[str, Sequence[Claim]]) -> dict[str, int]:
    """Return how many claims have each status."""
    statuses = [claim.status for claims in parts.values() for claim in claims]
    return {status: statuses.count(status) for status in ("PASS", "FAIL", "NOT RUN", "MEASURED")}


def blocks(about: Mapping[str, Any], parts: Mapping[str, Sequence[Claim]]) -> list[Block]:
    """Return what the page holds: what fails first, then each part."""
    everything = [claim for claims in parts.values() for claim in claims]
    failed = [claim for claim in everything if claim.fails]
    told = ", ".join(f"{number} {status}" for status, number in counts(parts).items())
    first: list[Block] = [f"{told}. {about['seconds']:.0f} seconds on {about['device']}; command: {about['command']}"]
    if failed:
        rows = [[_status(claim), Cell(claim.name), Cell(claim.found), Cell(claim.remedy)] for claim in failed]
        first += [Heading("What failed, and what to do"), Table("failed", ["", "claim", "found", "what to do"], rows)]
    for name, claims in parts.items():
        rows = [[_status(claim), Cell(claim.name), Cell(claim.expected), Cell(claim.found)] for claim in claims]
        first += [Heading(name), Table(name, HEADER, rows)]
    return first


def _status(claim: Claim) -> Cell:
    return Cell(claim.status, tone=TONES.get(claim.status, ""))

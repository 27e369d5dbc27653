"""The bench from networks to a table."""

import gzip
import hashlib
import inspect
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

import benchmarks.audit_bench
import snn_sparsity
from benchmarks.audit_bench.data import SEED, Digits, digits
from benchmarks.audit_bench.rejudge import Audited
from benchmarks.audit_bench.table import calibrated, markdown
from benchmarks.audit_bench.truth import Truth, measure
from benchmarks.audit_bench.zoo import EPS, KINDS, Kind
from snn_sparsity.audit.evidence import Evidence
from snn_sparsity.audit.run import audit
from snn_sparsity.runs.files import whole_file, write_whole
from snn_sparsity.validation import InputError

ATTACKS = ("attacks", "gradient_rules", "audit/collect", "audit/evidence.py", "audit/run.py", "encoders")
"""What evidence depends on besides the network: if it changes, networks are audited again."""


def bench(out: Path, *, only: str = "", images: int = 500, subsets_: int = 200, size: int = 256, fresh: bool = False) -> str:
    """Audit what is not audited yet, judge everything, write the tables and return the one in Markdown.

    Args:
        out: Folder of the results.
        only: Only networks whose name contains this.
        images: How many images are audited.
        subsets_: How many random subsets are judged.
        size: Images of a subset.
        fresh: Whether to audit again what is audited already.

    Raises:
        InputError: If no network has such a name, or subsets are larger than what is audited.
    """
    kinds = [kind for kind in KINDS if only in kind.name]
    if not kinds:
        raise InputError(f"--only {only}: no network has such a name; there are {', '.join(kind.name for kind in KINDS)}")
    if not 0 < size <= images:
        raise InputError(f"--size {size} --images {images}: a subset has at least one image and at most all")
    train, test = digits()
    test = Digits(test.images[:images], test.labels[:images])
    torch.set_num_threads(1)
    audited = []
    for kind in (bar := tqdm(kinds, unit="network")):
        bar.set_description_str(kind.name)
        audited.append(_read(kind, _kept(out / "networks" / f"{kind.name.replace(' ', '_')}.json.gz", kind, train, test, fresh)))
    result = calibrated(audited, subsets_, size)
    write_whole(out / "table.json", json.dumps(result, indent=1) + "\n")
    write_whole(out / "table.md", markdown(result))
    return markdown(result)


def _kept(path: Path, kind: Kind, train: Digits, test: Digits, fresh: bool) -> dict[str, Any]:
    """Return truth and evidence of a network; what is in the file and of the same attacks is taken from there."""
    identity = identity_of(kind, len(test.labels))
    if path.exists() and not fresh:
        found = json.loads(gzip.decompress(path.read_bytes()))
        if found["identity"] == identity:
            return dict(found)
    found = {"identity": identity, **examine(kind, train, test)}
    with whole_file(path) as file:
        file.write(gzip.compress(json.dumps(found).encode(), mtime=0))
    return found


def examine(kind: Kind, train: Digits, test: Digits) -> dict[str, Any]:
    """Train a network, measure its truth and audit it."""
    began = time.process_time()
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        built = kind.build(train)
        truth = measure(kind, built, test)
        result = audit(built.model, test.images, test.labels, eps=EPS, claim=kind.claim, encoder=built.encoder, batch_size=250, seed=SEED)
    return {
        "about": kind.about, "truth": asdict(truth), "evidence": result.evidence.to_json(), "seconds": round(time.process_time() - began, 1)
    }  # fmt: skip


def identity_of(kind: Kind, images: int) -> dict[str, Any]:
    """Return what a network's truth and evidence depend on."""
    room, package = Path(benchmarks.audit_bench.__path__[0]), Path(snn_sparsity.__path__[0])
    files = [room / name for name in ("data.py", "layers.py", "truth.py")]
    for part in ATTACKS:
        files += sorted((package / part).rglob("*.py")) if (package / part).is_dir() else [package / part]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files) + inspect.getsource(kind.build).encode())
    return {"images": images, "seed": SEED, "source": digest.hexdigest()}


def _read(kind: Kind, found: dict[str, Any]) -> Audited:
    return Audited(name=kind.name, half=kind.half, truth=Truth(**found["truth"]), evidence=Evidence.from_json(found["evidence"]))

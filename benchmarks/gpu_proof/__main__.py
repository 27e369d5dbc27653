"""Show or refute on this machine's GPU what is claimed of one.

    python -m benchmarks.gpu_proof --out DIR [--data FOLDER] [--part NAME ...] [--device cuda|cpu] [--within SECONDS]

Each part runs in a process of its own, with a limit of its own: what crashes, hangs or runs out of memory loses nothing but itself. Parts
that are timed run first, alone, the others side by side. DIR/proof.json, proof.html and proof.md are written after each part, DIR/logs.txt
at the end. Exit code 0 if nothing fails, 1 otherwise. On a CPU the half that needs no GPU runs, at tiny sizes.
"""

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.gpu_proof.claims import Claim, Part, Place, judged, not_run

WITHIN = 480
"""Seconds of the whole on one H100."""
ON_A_CPU = 600
"""Seconds of a part, where nothing is timed."""
THREADS = 2
"""Of a part that runs beside others."""
PARTS = {
    "versions": Part("exactness", 150),
    "neurons": Part("exactness", 150),
    "networks": Part("exactness", 150),
    "attacks": Part("exactness", 150),
    "probes": Part("exactness", 150),
    "waits": Part("runs", 150),
    "repeated": Part("runs", 150),
    "ranks": Part("runs", 150),
    "precision": Part("runs", 200),
    "launches": Part("speed", 90, alone=True),
    "epoch": Part("speed", 60, alone=True),
    "graphs": Part("speed", 90, alone=True),
    "bench": Part("speed", 150, alone=True),
}
GOLDEN = ("shared/golden", "../shared/golden")
LOG = 20_000
"""Characters of a part's log that are kept."""


class Running:
    """A part in a process of its own."""

    def __init__(self, name: str, given: argparse.Namespace, folder: Path, limit: float) -> None:
        self.name, self.limit, self.folder = name, limit, folder
        folder.mkdir()
        self.claims, self.log = folder / "claims.jsonl", folder / "log.txt"
        data = ["--data", str(given.data.resolve())] if given.data else []
        command = [sys.executable, "-m", "benchmarks.gpu_proof", "--device", given.device, "--run", name, "--out", str(folder), *data]
        caches = {"SNN_SPARSITY_CACHE": "cache", "TRITON_CACHE_DIR": "triton"}
        environment = {variable: str(folder.parent / kept) for variable, kept in caches.items()} | dict(os.environ)
        if not PARTS[name].alone:
            environment["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(THREADS))
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True)
        self.began = time.monotonic()

    def has_ended(self) -> bool:
        """Return whether it has, killing it and all that it started where its time is up."""
        self.over = time.monotonic() - self.began > self.limit
        if self.process.poll() is None and not self.over:
            return False
        self.kill()
        return True

    def kill(self) -> None:
        """End it and all that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def found(self) -> list[Claim]:
        """Return its claims, and one more if it did not run to its end."""
        lines = self.claims.read_text().splitlines() if self.claims.exists() else []
        claims = [Claim(**json.loads(line)) for line in lines if line.endswith("}")]
        code = self.process.returncode
        if code == 0:
            return claims
        why = f"killed after {self.limit:.0f} s" if self.over else f"exit code {code}"
        said = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()][-3:]
        remedy = f"run it by itself: python -m benchmarks.gpu_proof --part {self.name}"
        return [*claims, judged(f"part {self.name}", "runs to its end", f"{why}: {' / '.join(said)[-600:]}", False, remedy)]


class Proof:
    """The claims so far, written down whenever there are more.

    Args:
        given: The command line.
        folder: Where parts work.
    """

    def __init__(self, given: argparse.Namespace, folder: Path) -> None:
        self.given, self.folder, self.began = given, folder, time.monotonic()
        self.parts: dict[str, list[Claim]] = {}
        self.running: list[Running] = []

    def run(self, names: Sequence[str]) -> None:
        """Run parts: those that are timed one by one, then the others side by side (on a CPU one by one: it may have few cores)."""
        together = [name for name in names if not PARTS[name].alone]
        rows = [together] if self.given.device == "cuda" else [[name] for name in together]
        for row in [*([name] for name in names if PARTS[name].alone), *rows]:
            self._side_by_side(row)

    def _side_by_side(self, names: Sequence[str]) -> None:
        for name in names:
            left = self.given.within - (time.monotonic() - self.began)
            limit = min(left, PARTS[name].limit if self.given.device == "cuda" else ON_A_CPU)
            if limit < 1:
                self._keep(name, [not_run(f"part {name}", f"no time was left of {self.given.within} s: give --part {name}")])
            else:
                self.running.append(Running(name, self.given, self.folder / name, limit))
        while self.running:
            for part in [part for part in self.running if part.has_ended()]:
                self.running.remove(part)
                self._keep(part.name, part.found(), time.monotonic() - part.began)
            time.sleep(0.1)

    def _keep(self, name: str, claims: list[Claim], seconds: float = 0) -> None:
        from benchmarks.gpu_proof import page

        self.parts[name] = claims
        ordered = {part: self.parts[part] for part in PARTS if part in self.parts}
        command = "python -m benchmarks.gpu_proof " + " ".join(sys.argv[1:])
        about = {"device": self.given.device, "command": command, "seconds": time.monotonic() - self.began}
        page.write(self.given.out, about, ordered)
        for claim in claims:
            print(f"{claim.status:8} {name}: {claim.name}: {claim.found}", flush=True)
        print(f"-------- {name}: {seconds:.0f} s, {about['seconds']:.0f} s in all", flush=True)

    def end(self) -> None:
        """Leave nothing running, and keep what parts said."""
        for part in self.running:
            part.kill()
        logs = sorted(self.folder.glob("*/*.log")) + sorted(self.folder.glob("*/log.txt"))
        texts = [f"===== {log.relative_to(self.folder)}\n{log.read_text(errors='replace')[-LOG:]}" for log in logs]
        (self.given.out / "logs.txt").write_text("\n".join(texts))


def run_part(name: str, place: Place) -> None:
    """Run a part in this process; append each claim to ``claims.jsonl`` in its folder as it comes."""
    module: Any = importlib.import_module(f"benchmarks.gpu_proof.{PARTS[name].module}")
    with (place.scratch / "claims.jsonl").open("a") as file:
        for claim in getattr(module, name)(place):
            file.write(claim.line() + "\n")
            file.flush()


def main() -> int:
    """Run the parts that are asked for; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where proof.json, proof.html, proof.md and logs.txt go")
    parser.add_argument("--data", type=Path, help="folder with the authors' golden cases")
    parser.add_argument("--part", nargs="+", choices=list(PARTS), default=list(PARTS), help="only these")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--within", type=float, help=f"seconds of the whole; {WITHIN} on a GPU")
    parser.add_argument("--run", choices=list(PARTS), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        run_part(given.run, Place(given.device, given.out, given.data))
        return 0
    if given.data is not None and not given.data.is_dir():
        parser.error(f"--data {given.data} is no folder")
    given.data = given.data or next((path for path in map(Path, GOLDEN) if path.is_dir()), None)
    given.within = given.within or (WITHIN if given.device == "cuda" else ON_A_CPU * len(PARTS))
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gpu_proof") as folder:
        proof = Proof(given, Path(folder))
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            proof.run(given.part)
        finally:
            proof.end()
    claims = [claim for claims in proof.parts.values() for claim in claims]
    return int(any(claim.fails for claim in claims))


if __name__ == "__main__":
    sys.exit(main())

"""One process for each run, a lock for each row; whoever is killed, the next sweep takes up what is left."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from snn_sparsity.runs.files import hold
from snn_sparsity.runs.metrics import epochs_logged
from snn_sparsity.sweep.grid import GridRow, epochs_asked
from snn_sparsity.sweep.progress import GridProgress
from snn_sparsity.sweep.state import Place, clear, next_command, runs_of

POLL_SECONDS = 0.5
LOG, LOCK = "sweep.log", "sweep.lock"
PATIENCE_SECONDS = 20
"""How long a stopped run may take to end by itself."""


class _Running(NamedTuple):
    row: GridRow
    process: subprocess.Popen[bytes]
    slot: Mapping[str, str]


class Sweep:
    """Run the rows of a grid, one process in each slot.

    Args:
        rows: The rows.
        place: Where and on what they are run.
        slots: Environment variables of each process that may run at a time.
    """

    def __init__(self, rows: Sequence[GridRow], place: Place, slots: Sequence[Mapping[str, str]]) -> None:
        self.place = place
        self.free = list(slots)
        self.waiting = list(rows)
        self.running: list[_Running] = []
        self.failed: list[GridRow] = []
        self._tried: set[tuple[str, ...]] = set()
        self._elsewhere: set[str] = set()
        self.progress = GridProgress({_label(row): epochs_asked(row) for row in rows}, {_label(row): self._epochs(row) for row in rows})

    def run(self) -> int:
        """Run everything that is not finished; return 0 if all is finished, else 1."""
        print(self.progress.line(), flush=True)
        try:
            while self.waiting or self.running:
                self._start()
                self._collect()
                time.sleep(POLL_SECONDS)
        finally:
            self._stop()
        for row in self.failed:
            log = self.place.folder(row) / LOG
            lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()] if log.is_file() else []
            print(f"{_label(row)}: FAILED: {lines[-1] if lines else 'it wrote nothing'} (all of it: {log})", flush=True)
        return 1 if self.failed else 0

    def _start(self) -> None:
        for row in list(self.waiting):
            if not self.free:
                return
            lock = hold(self.place.folder(row) / LOCK)
            if lock is None:
                if _label(row) not in self._elsewhere:
                    print(f"{_label(row)}: runs elsewhere already; waiting for it", flush=True)
                self._elsewhere.add(_label(row))
                continue
            self.waiting.remove(row)
            try:
                self._begin(row, lock)
            finally:
                # The process has its own hold on the lock, for as long as it lives.
                os.close(lock)

    def _begin(self, row: GridRow, lock: int) -> None:
        command = next_command(row, self.place)
        if command is None:
            print(f"{_label(row)}: finished", flush=True)
            self._note(row, finished=True)
            return
        if (key := (_label(row), *command)) in self._tried:
            self.failed.append(row)
            return
        self._tried.add(key)
        for folder in clear(row, self.place):
            print(f"{_label(row)}: removed {folder}: it was broken off", flush=True)
        slot = self.free.pop(0)
        print(f"{_label(row)}: snn-sparsity {' '.join(command)}", flush=True)
        with (self.place.folder(row) / LOG).open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "snn_sparsity", *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, **slot}, pass_fds=[lock],
            )  # fmt: skip
        self.running.append(_Running(row, process, slot))

    def _collect(self) -> None:
        """Take in the processes that ended; their rows are looked at again: there may be more to run."""
        for job in list(self.running):
            self._note(job.row)
            if job.process.poll() is None:
                continue
            self.running.remove(job)
            self.free.append(job.slot)
            if job.process.returncode:
                self.failed.append(job.row)
            else:
                self.waiting.insert(0, job.row)

    def _note(self, row: GridRow, *, finished: bool = False) -> None:
        if self.progress.update(_label(row), self._epochs(row), finished=finished):
            print(self.progress.line(), flush=True)

    def _epochs(self, row: GridRow) -> int:
        return max((epochs_logged(run) for run in runs_of(row, self.place)), default=0)

    def _stop(self) -> None:
        """End the processes that still run, so that none outlives a sweep that is stopped by hand."""
        for job in self.running:
            job.process.send_signal(signal.SIGTERM)
        for job in self.running:
            try:
                job.process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                job.process.kill()
                job.process.wait()


def _label(row: GridRow) -> str:
    return f"{row.name}, seed {row.seed}"

"""One side of the benchmark in a process of its own: its threads, its denormals and its peak memory are then its own too."""

import logging
import multiprocessing
import os
import resource
import time
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal
from unittest.mock import patch

import torch

from benchmarks.work import Work
from snn_sparsity.commands.main import LARGE_PAGES

Side = Literal["baseline", "published", "ours"]
Arm = Callable[[], float | None]
PEAK = "peak memory"


class Worker:
    """Runs the arms of one side, one at a time, when asked.

    Args:
        side: Whose code runs.
        work: How much.
        worn: Whether weights and optimiser are first brought to where an epoch of L2 decay takes them.
        weights: State dict of the network; None leaves it untrained.
    """

    def __init__(self, side: Side, work: Work, worn: bool = False, weights: Path | None = None) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there, side, work, worn, weights), daemon=True)
        # As the command line does, before anything takes memory.
        with patch.dict(os.environ, [LARGE_PAGES] if side == "ours" else []):
            self._process.start()
        there.close()
        self.arms: list[str] = self._connection.recv()

    def ask(self, question: str) -> float:
        """Return the seconds that an arm took, or by how many MiB the peak of all arms so far lies above what was there before."""
        self._connection.send(question)
        answer: float | Exception = self._connection.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.join()


def _serve(connection: Connection, side: Side, work: Work, worn: bool, weights: Path | None) -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    arms = _arms(side, work, worn, weights)
    start = _peak(work.device)
    connection.send(list(arms))
    while True:
        try:
            question = connection.recv()
        except EOFError:
            return
        try:
            connection.send(_peak(work.device) - start if question == PEAK else _seconds(arms[question], work.device))
        except Exception as error:  # noqa: BLE001  # whatever it is, the parent raises it
            connection.send(error)


def _arms(side: Side, work: Work, worn: bool, weights: Path | None) -> dict[str, Arm]:
    if side == "baseline":
        from benchmarks.baseline import Loop as Party
    elif side == "published":
        from benchmarks.published import PublishedLoop as Party
    else:
        # As the command line does, before PyTorch starts its threads.
        torch.set_flush_denormal(True)
        from benchmarks.ours import Project as Party
    party = Party(work)
    if weights:
        party.network.load_state_dict(torch.load(weights))
    if worn:
        party.wear()
    return party.arms()


def _seconds(arm: Arm, device: str) -> float:
    """Run an arm; some know better than the clock what counts."""
    began = time.perf_counter()
    own = arm()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began if own is None else own


def _peak(device: str) -> float:
    """Return the highest use of memory so far, in MiB: the GPU's, or the process's own."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10

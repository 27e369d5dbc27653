"""Runs in processes of their own that kill themselves, as ``kill -9`` would, at a chosen moment.

A moment is any step of a batch, any gradient that an attack or a training step asks for, any write of metrics, and any file's way to the
disk: all are counted, and the run dies just before the chosen one. The processes are forks of one that has imported everything.
"""

import multiprocessing
import os
import resource
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

import torch
from lightning import Trainer

from snn_sparsity.commands import train  # noqa: F401  # imported once, for all forks
from snn_sparsity.commands.main import main
from snn_sparsity.runs.files import hold
from snn_sparsity.training.metrics_logger import MetricsCSV
from tests.tiny import TinyNetwork


class DroppingNetwork(TinyNetwork):
    """A network that draws random numbers while it trains."""

    def forward(self, spikes):
        return torch.nn.functional.dropout(super().forward(spikes), 0.2, self.training)


WATCHED = {
    "train": (torch.optim.Adam, "step"),
    "forward": (torch.nn.Linear, "forward"),
    "gradient": (torch.autograd, "grad"),
    "metrics": (MetricsCSV, "log_metrics"),
    "checkpoint": (Trainer, "save_checkpoint"),
    "sync": (os, "fsync"),
    "rename": (Path, "replace"),
}


@contextmanager
def moments(act):
    """Call ``act(kind)`` before each moment."""
    before = {kind: getattr(owner, name) for kind, (owner, name) in WATCHED.items()}

    def watched(kind):
        def call(*args, **kwargs):
            act(kind)
            return before[kind](*args, **kwargs)

        return call

    for kind, (owner, name) in WATCHED.items():
        setattr(owner, name, watched(kind))
    try:
        yield
    finally:
        for kind, (owner, name) in WATCHED.items():
            setattr(owner, name, before[kind])


class At:
    """Act at the n-th moment, or at the n-th of a kind."""

    def __init__(self, number, kind=None):
        self.left, self.kind = number, kind

    def __call__(self, kind):
        if self.kind in (None, kind):
            self.left -= 1
            if self.left == 0:
                self.act()


class Kill(At):
    """Send a signal to this process; ``then`` says what happens at a later moment."""

    def __init__(self, number, kind=None, what=signal.SIGKILL, then=None):
        super().__init__(number, kind)
        self.what, self.then = what, then

    def __call__(self, kind):
        if self.left <= 0 and self.then:
            self.then(kind)
        super().__call__(kind)

    def act(self):
        os.kill(os.getpid(), self.what)


class Fill(At):
    """From then on no file may grow beyond so many bytes, as on a full disk."""

    def __init__(self, number, kind, size):
        super().__init__(number, kind)
        self.size = size

    def act(self):
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, resource.RLIM_INFINITY))


class Fail(At):
    """Fail as the system would."""

    def __init__(self, number, kind, errno):
        super().__init__(number, kind)
        self.errno = errno

    def act(self):
        raise OSError(self.errno, os.strerror(self.errno))


class Ask(At):
    """Write down whether a file is held then."""

    def __init__(self, number, kind, path):
        super().__init__(number, kind)
        self.path = path

    def act(self):
        Path("held.txt").write_text(str(is_held(self.path)))


def is_held(path):
    """Tell whether a process holds a file."""
    descriptor = hold(path)
    if descriptor is not None:
        os.close(descriptor)
    return descriptor is None


class Note:
    """Write down every moment."""

    def __init__(self, path):
        self.path = path

    def __call__(self, kind):
        with open(self.path, "a") as file:
            file.write(f"{kind}\n")


def _run(arguments, act, folder, output):
    os.chdir(folder)
    sys.argv = ["snn-sparsity", *arguments]
    with open(output, "w") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    torch.set_num_threads(1)
    with moments(act or (lambda kind: None)):
        sys.exit(main(arguments))


def run(arguments, act=None, output="output.txt"):
    """Run a command in a process of its own, here; return its exit code, below zero for the signal that ended it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.killing"])
    process = context.Process(target=_run, args=(arguments, act, os.getcwd(), output))
    process.start()
    process.join()
    return process.exitcode

"""The promise that rubbish is held to: success, or one clear line with exit code 2, and nothing left behind."""

import io
import json
import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

from snn_sparsity.commands.main import main
from snn_sparsity.validation import InputError

LONGEST_LINE = 1100
LONGEST_SECONDS, STOPPED = 20, 130
SEED = int(os.environ.get("FUZZ_SEED", "0"))
"""The cases of a seed are always the same; another seed looks elsewhere."""


def fuzz(strategy: SearchStrategy, check: Callable, cases: int) -> None:
    """Hold at least this many cases to a check."""
    seen = 0

    @seed(SEED)
    @settings(
        max_examples=cases, deadline=None, database=None, phases=[Phase.generate, Phase.shrink], suppress_health_check=list(HealthCheck)
    )
    @given(strategy)
    def hold(case):
        nonlocal seen
        seen += 1
        check(case)

    hold()
    assert seen >= cases


def run(arguments: Sequence[str], at_most: int = 0) -> str:
    """Run a command in the current folder, for so many seconds at most if not 0; return what it complained of: one line, or nothing."""
    before = tree()
    printed, complained = _stream("strict"), _stream("backslashreplace")
    with redirect_stdout(printed), redirect_stderr(complained), stopped_after(at_most):
        code = exit_code(list(arguments))
    said = _content(complained)
    assert "Traceback" not in _content(printed) + said, said
    errors = [line for line in said.splitlines() if "error:" in line]
    if code == 0:
        assert not errors, errors
        assert half_made() == []
        return ""
    if code == STOPPED and at_most:
        # A million steps are nobody's mistake.
        assert not errors, errors
        return ""
    assert len(errors) == 1, said
    if code == 1:
        # No mistake in what was given, but numbers that went wrong with it: that run is kept.
        assert "NaN or infinite" in errors[0]
        return errors[0]
    assert code == 2, code
    assert errors[0].startswith("snn-sparsity: error: "), errors
    assert 30 < len(errors[0]) < LONGEST_LINE, errors
    assert tree() == before
    return errors[0]


def refused(check: Callable[[], object]) -> str:
    """Call what may refuse its input, and return the reason; empty if it was accepted."""
    try:
        check()
    except InputError as error:
        return str(error)
    return ""


@contextmanager
def empty_folder() -> Iterator[Path]:
    """Work in a new folder, with the cache in it."""
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        yield Path(folder)


@contextmanager
def stopped_after(seconds: int) -> Iterator[None]:
    """Press Ctrl-C when it has taken so long; never for 0."""
    before = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def tree() -> list[str]:
    """Return everything below the current folder but compiled kernels, which the first command that computes may keep in its cache."""
    everything = [os.path.join(folder, name) for folder, folders, files in os.walk(b".") for name in [*folders, *files]]
    return sorted(path for path in everything if not path.startswith(b"./cache/kernels"))


def half_made() -> list[Path]:
    """Return the runs that did not finish, and files that are not whole."""
    unfinished = [path for path in Path().rglob("run.json") if json.loads(path.read_text())["status"] != "finished"]
    return [*unfinished, *Path().rglob("*.part"), *Path().rglob(".*.png")]


def exit_code(arguments: list[str]) -> int:
    """Run a command."""
    try:
        return main(arguments)
    except SystemExit as end:
        # --help and --print_config end so.
        return int(end.code or 0)
    finally:
        # A command flushes denormals in its process, in which hypothesis draws numbers.
        torch.set_flush_denormal(False)


def _stream(errors: str) -> io.TextIOWrapper:
    """Return what Python makes of a process's own streams: text that cannot be encoded fails there as it would fail here."""
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors=errors)


def _content(stream: io.TextIOWrapper) -> str:
    stream.flush()
    return stream.buffer.getvalue().decode()

"""The command line: ``snn-sparsity COMMAND ...``; each command is imported only when it is run."""

import errno
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from importlib.metadata import version
from io import TextIOWrapper

from snn_sparsity.commands.imports import import_lightning
from snn_sparsity.commands.mistakes import check
from snn_sparsity.commands.tree import parse
from snn_sparsity.runs.interrupts import Interrupted, interruptible
from snn_sparsity.validation import InputError, RunError

RUN_ERROR, USAGE_ERROR = 1, 2
BROKEN_PIPE = 128 + signal.SIGPIPE
OUT_OF_REACH = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EIO,
                errno.ELOOP, errno.ENAMETOOLONG}  # fmt: skip
GOES_ON = {
    "fit": ": with --resume the same command goes on",
    "audit": ": with --resume the same command goes on",
    "sweep": ": the same command goes on from here",
    "experiment": ": the same command goes on from here",
}
"""What to say to whoever stopped a command."""
LARGE_PAGES = ("THP_MEM_ALLOC_ENABLE", "1")
"""PyTorch reads it when it first takes memory: tensors lie in pages of 2 MB where Linux gives them, and wait less for the system."""
LONGEST_LINE = 1000
"""Signs of an error that are shown."""


def main(args: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code, with one line for each but 0.

    0; 2 for a mistake in what was given, or a file that cannot be written; 1 for a run that went wrong by itself, such as a loss that
    is NaN; 130 after Ctrl-C, 143 after SIGTERM.

    Example:
        >>> main(["--version"]).__class__, main(["configs"]) # doctest: +ELLIPSIS
        snn-sparsity ...
        ...
        (<class 'int'>, 0)
    """
    arguments = list(sys.argv[1:] if args is None else args)
    _open_closed_streams()
    with interruptible():
        try:
            return _run(arguments)
        except (InputError, RunError) as error:
            # One line, without control characters, and without its middle where it is too long to read.
            line = "".join(sign if sign.isprintable() else "?" for sign in " ".join(str(error).split()))
            half = LONGEST_LINE // 2
            short = line if len(line) <= LONGEST_LINE else f"{line[:half]} ... {line[-half:]}"
            return _tell(f"error: {short}", RUN_ERROR if isinstance(error, RunError) else USAGE_ERROR)
        except OSError as error:
            if error.errno not in OUT_OF_REACH:
                raise
            return _tell(": ".join(["error", *filter(None, [error.filename]), str(error.strerror)]), USAGE_ERROR)
        except Interrupted as stop:
            return _tell(f"stopped by {stop}{GOES_ON.get(arguments[0], '')}", stop.exit_code)


def _open_closed_streams() -> None:
    """Let streams that were closed before this began, as by ``2>&-``, lead nowhere.

    Python has None for them, and the next file that is opened would get their number, and what libraries in C say.
    """
    for name in ("stdin", "stdout", "stderr"):
        # In this order: what is opened gets the smallest number that is free.
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(nowhere, "r" if name == "stdin" else "w", errors="backslashreplace"))


def _tell(line: str, exit_code: int) -> int:
    # Where nobody can be told, as on a full disk, the exit code still says it.
    with suppress(OSError):
        # A progress bar leaves its line unfinished.
        print(f"{chr(10) if sys.stderr.isatty() else ''}snn-sparsity: {line}", file=sys.stderr)
    return exit_code


def _run(arguments: list[str]) -> int:
    if isinstance(sys.stdout, TextIOWrapper):
        # A file's name may hold what cannot be printed; it is no reason to stop.
        sys.stdout.reconfigure(errors="backslashreplace")
    if arguments[:1] in ([], ["-h"], ["--help"], ["--version"]):
        with suppress(SystemExit):
            parse(arguments)
        return 0
    given = parse(arguments)
    if int((found := version("spikingjelly")).split(".")[0]) < 2:
        raise InputError(f"SpikingJelly {found} is not supported: its neurons have no gradient in eval mode; install spikingjelly>=2,<3")
    # A console script does not look for modules where it is started; a user's own probe lies there.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    check(given)
    if given.takes_more:
        import_lightning()
    module = import_module(given.module)
    if "torch" in sys.modules:
        # Before PyTorch starts its threads, if this command computes at all.
        import_module("snn_sparsity.numerics").settle_numerics()
    exit_code: int = module.run(given)
    return exit_code


def console() -> None:
    """Entry point of the console script. A reader that goes away, as ``head`` does, ends it quietly."""
    os.environ.setdefault(*LARGE_PAGES)
    try:
        try:
            exit_code = main()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more when it exits.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere, stream.fileno())
        exit_code = BROKEN_PIPE
    sys.exit(exit_code)

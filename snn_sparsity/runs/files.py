"""Files that are whole or not there, or that one process holds."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from snn_sparsity.validation import InputError


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file to be written, in bytes, that takes its name only when all of it is on disk; what had that name stays until then.

    Raises:
        InputError: If it cannot be written, as on a full disk.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "new" / "a.txt"
        >>> with whole_file(path) as file:
        ...     _ = file.write(b"all of it")
        >>> path.read_text(), [each.name for each in path.parent.iterdir()]
        ('all of it', ['a.txt'])
    """
    # Beside it: only within one file system does a rename happen at once. What a killed process left there is overwritten.
    unfinished = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(unfinished) as file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                unfinished.replace(path)
            finally:
                with suppress(OSError):
                    unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise unwritten(path, error) from error


def _alone(path: Path) -> IO[bytes]:
    """Open an empty file that no other process writes to; wait for one that does."""
    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "wb")
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        # Whoever held it may have given it its name meanwhile.
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            file.truncate()
            return file
        file.close()


def write_whole(path: Path, text: str) -> None:
    """Write a text file that takes its name only when it is whole.

    Raises:
        InputError: If it cannot be written.
    """
    with whole_file(path) as file:
        file.write(text.encode())


def hold(path: Path) -> int | None:
    """Return a descriptor that holds a file for as long as it is open, or None if another process holds it.

    The file is made where there is none, stays empty, and is left behind: it is the hold that counts, and that ends with the process.

    Raises:
        InputError: If it cannot be made.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.lock"
        >>> descriptor = hold(path)
        >>> hold(path) is None
        True
        >>> os.close(descriptor)
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _locked(os.open(path, os.O_RDWR | os.O_CREAT, 0o644))
    except OSError as error:
        raise unwritten(path, error) from error


def _locked(descriptor: int) -> int | None:
    """Return the descriptor, locked; None, and it is closed, if another process has the lock."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        # A file system without locks: nothing can be held there, and that is no reason to stop.
        pass
    return descriptor


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold a folder while the block runs, so that no two processes put their results there; it is made, and goes again if it stays empty.

    Raises:
        InputError: If another process holds it, or it cannot be made.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp()) / "audit"
        >>> with only_writer(folder):
        ...     with only_writer(folder):
        ...         pass
        Traceback (most recent call last):
        snn_sparsity.validation.InputError: ...: another process is at work there: wait for it, or have the results put elsewhere
        >>> folder.exists()
        False
    """
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _locked(os.open(folder, os.O_RDONLY))
    except OSError as error:
        raise unwritten(folder, error) from error
    if descriptor is None:
        raise InputError(f"{folder}: another process is at work there: wait for it, or have the results put elsewhere")
    try:
        yield
    finally:
        os.close(descriptor)
        if new:
            with suppress(OSError):
                folder.rmdir()


def unwritten(path: Path, error: OSError) -> InputError:
    """Return the error to raise for a file that cannot be written."""
    return InputError(f"{path} cannot be written: {error.strerror or error}")

"""Files that are whole or not there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from snn_sparsity.checks import InputError


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
    # Beside it: only within one file system does a rename happen at once.
    unfinished = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        raise unwritten(path, error) from error
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write a text file that takes its name only when it is whole.

    Raises:
        InputError: If it cannot be written.
    """
    with whole_file(path) as file:
        file.write(text.encode())


def unwritten(path: Path, error: OSError) -> InputError:
    """Return the error to raise for a file that cannot be written."""
    return InputError(f"{path} cannot be written: {error.strerror or error}")

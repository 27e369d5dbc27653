"""Functions written in C: compiled once for the processor at hand, and kept in the cache."""

import ctypes
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from snn_sparsity.cache import cache_directory

log = logging.getLogger(__name__)

OPTIONS = ("-O3", "-march=native", "-fno-trapping-math", "-fopenmp", "-shared", "-fPIC")
OTHERWISE = "spiking networks run on the CPU all the same, on slower code"


def library(source: Path, *options: str) -> ctypes.CDLL | None:
    """Return the functions of a C file; None, after one line in the log, where it cannot be compiled.

    Compiled by ``cc``, or what ``$CC`` names, in about a second, once: the library is kept in the cache directory, in ``kernels``, named
    by the checksums of what it was compiled from and of itself. A file that is damaged, or that somebody else could have written, is not
    loaded.

    Args:
        source: The C file.
        options: Of the compiler, besides the usual ones.
    """
    try:
        text = source.read_bytes()
    except OSError as error:
        warn_once(f"{source.name} is missing from this installation of snn_sparsity ({error.strerror}): {OTHERWISE}")
        return None
    compiler = shlex.split(os.environ.get("CC", "cc"))
    command = [*compiler, *OPTIONS, *options]
    if not compiler or shutil.which(compiler[0]) is None:
        warn_once(f"No C compiler ({' '.join(compiler) or 'cc'}, from $CC or by default): {OTHERWISE}")
        return None
    made_of = hashlib.sha256(repr((command, text, platform.machine(), _features())).encode()).hexdigest()[:16]
    kept = _kept(f"{source.stem}-{made_of}")
    try:
        return ctypes.CDLL(str(kept)) if kept else _compile(command, source, made_of)
    except subprocess.CalledProcessError as error:
        last = error.stderr.decode(errors="replace").strip().splitlines()[-1:]
        warn_once(f"{compiler[0]} could not compile {source.name} ({': '.join([f'exit code {error.returncode}', *last])}): {OTHERWISE}")
    except OSError as error:
        warn_once(f"{source.name} could not be compiled or loaded ({error}): {OTHERWISE}")
    return None


@cache
def warn_once(line: str) -> None:
    """Log a warning that has not been logged before."""
    log.warning(line)


@cache
def _features() -> str:
    """Return what tells this processor from others that may share the cache directory."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())


def _kept(name: str) -> Path | None:
    for path in sorted((cache_directory() / "kernels").glob(f"{name}-*.so")):
        try:
            checked = _is_mine(path) and _is_mine(path.parent) and path.stem.endswith(hashlib.sha256(path.read_bytes()).hexdigest())
        except OSError:
            continue
        if checked:
            return path
    return None


def _is_mine(path: Path) -> bool:
    """Return whether nobody else can have written a file or directory: it will be run."""
    status = path.stat()
    return status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _compile(command: list[str], source: Path, made_of: str) -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "made.so"
        subprocess.run([*command, str(source), "-o", str(made)], check=True, capture_output=True)
        content = made.read_bytes()
        kept = cache_directory() / "kernels" / f"{source.stem}-{made_of}-{hashlib.sha256(content).hexdigest()}.so"
        unfinished = kept.with_name(f"{kept.name}.{os.getpid()}")
        try:
            kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            unfinished.write_bytes(content)
            unfinished.chmod(0o600)
            unfinished.replace(kept)
        except OSError as error:
            warn_once(f"Compiled kernels cannot be kept ({error}): each process compiles its own")
        return ctypes.CDLL(str(made))

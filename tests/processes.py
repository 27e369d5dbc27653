"""Start programs as a user or a cluster does: real processes, which speak to each other on the loopback interface alone."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PATIENCE = 300
"""Seconds after which processes count as hanging."""


def start(*arguments, cwd=None, **environment):
    """Start a Python program with the checkout on its path, one thread, and a process group of its own."""
    # A run that has started others tells them so in the environment; a test is nobody's child.
    inherited = {name: value for name, value in os.environ.items() if name not in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_PORT")}
    environment = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(ROOT), **environment}
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=cwd or ROOT,
        env=inherited | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process):
    """Return exit code and output; a process that hangs is killed with all it started, and fails the test."""
    try:
        output, _ = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired as error:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        raise AssertionError(f"hangs after {PATIENCE} s:\n{output[-3000:]}") from error
    return process.returncode, output


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]

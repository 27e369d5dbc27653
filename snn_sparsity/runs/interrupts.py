"""Ctrl-C and SIGTERM: end in order at the first, at once at the second."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """The process was asked to end.

    No KeyboardInterrupt: Lightning would take that for its own, leave with exit code 1, and ignore a second Ctrl-C.

    Args:
        number: The signal.

    Example:
        >>> Interrupted(signal.SIGTERM).exit_code, str(Interrupted(signal.SIGINT))
        (143, 'Ctrl-C')
    """

    def __init__(self, number: int) -> None:
        super().__init__("Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name)
        self.exit_code = 128 + number


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise Interrupted at the first Ctrl-C or SIGTERM; the second ends the process as if it caught neither."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    # What whoever started the process chose to ignore, as nohup does, stays ignored.
    caught = [number for number in SIGNALS if before[number] != signal.SIG_IGN]
    for number in caught:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number in caught:
            signal.signal(number, before[number])


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    for each in SIGNALS:
        # The other one may be on its way already: Python complains of a signal that it took and that has no handler any more.
        signal.signal(each, signal.SIG_DFL if each == number else _end)
    raise Interrupted(number)


def _end(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)

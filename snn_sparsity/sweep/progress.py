"""How far a whole grid has come, and how long it will take."""

import time
from collections.abc import Mapping

MINUTE, HOUR = 60, 3600


class GridProgress:
    """Count epochs over a grid; the time left is that of the epochs left, at the pace since the sweep began.

    Args:
        asked: Epochs of each run.
        done: Epochs of each run that were there before.
    """

    def __init__(self, asked: Mapping[str, int], done: Mapping[str, int]) -> None:
        self.asked = dict(asked)
        self.done = {run: min(epochs, asked[run]) for run, epochs in done.items()}
        self.before = sum(self.done.values())
        self.began = time.monotonic()

    def update(self, run: str, epochs: int, *, finished: bool = False) -> bool:
        """Note how many epochs a run has behind it, and return whether that is news; a finished one was asked for no more."""
        before = self.asked[run], self.done[run]
        self.done[run] = max(self.done[run], min(epochs, self.asked[run]))
        if finished:
            self.asked[run] = self.done[run]
        return (self.asked[run], self.done[run]) != before

    def line(self) -> str:
        """Return the whole grid in one line."""
        asked, total = sum(self.asked.values()), sum(self.done.values())
        share = f" ({100 * total / asked:.0f} %)" if asked else ""
        left = time_left(asked - total, total - self.before, time.monotonic() - self.began)
        return f"grid: {total} of {asked} epochs{share}, {left}"


def time_left(epochs_left: int, epochs_done: int, seconds: float) -> str:
    """Return how long the epochs left will take at the pace of those done.

    Example:
        >>> time_left(90, 10, 600), time_left(1, 0, 5), time_left(0, 3, 5)
        ('about 1 h 30 min left', 'time left not known yet', 'nothing left')
    """
    if epochs_left <= 0:
        return "nothing left"
    if epochs_done <= 0:
        return "time left not known yet"
    return f"about {duration(epochs_left * seconds / epochs_done)} left"


def duration(seconds: float) -> str:
    """Return a time in its two largest units.

    Example:
        >>> duration(42.4), duration(150), duration(5400), duration(200000)
        ('42 s', '2 min 30 s', '1 h 30 min', '2 d 7 h')
    """
    whole = round(seconds)
    for size, name, smaller, part in ((24 * HOUR, "d", HOUR, "h"), (HOUR, "h", MINUTE, "min"), (MINUTE, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {name} {whole % size // smaller} {part}"
    return f"{whole} s"

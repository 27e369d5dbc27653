"""One-line errors: what a user can get wrong (the name, the value given, what is allowed), and what can go wrong in a run."""

import os
from collections.abc import Iterable
from difflib import get_close_matches
from math import inf

LARGEST = {True: 2**53, False: 1.7e308}
"""Whole numbers beyond it are no exact floats, and numbers beyond it no floats at all."""

PROCESSES_A_CORE = 4
"""More processes that compute only take each other's memory: a million of them took the machine."""

IN_IMAGE_UNITS = ("alpha", "eps")
"""Step and radius of an attack, where one is the whole range of a pixel; people think of them in grey levels."""


class InputError(ValueError):
    """A mistake in what the user gave (an option, a file, a folder); the command line shows it in one line, exit code 2."""


class RunError(RuntimeError):
    """What ended a run through no mistake in what was given; the command line shows it in one line, exit code 1."""


def require_choice(name: str, value: object, allowed: Iterable[object]) -> None:
    """Raise InputError unless ``value`` is one of ``allowed``.

    Example:
        >>> require_choice("pool", "median", ("max", "avg"))
        Traceback (most recent call last):
        snn_sparsity.validation.InputError: pool='median' is not allowed: choose one of 'max', 'avg'
    """
    options = tuple(allowed)
    if value not in options:
        raise InputError(f"{name}={value!r} is not allowed: choose one of {', '.join(map(repr, options))}")


def require_number(name: str, value: float, *, at_least: float = -inf, above: float = -inf,
                   at_most: float = inf, whole: bool = False) -> None:  # fmt: skip
    """Raise InputError unless ``value`` is a finite number in the range (and whole, where asked for).

    Example:
        >>> require_number("steps", 0, at_least=1, whole=True)
        Traceback (most recent call last):
        snn_sparsity.validation.InputError: steps=0 is not allowed: give a whole number of at least 1
        >>> require_number("eps", 8, at_least=0, at_most=1)
        Traceback (most recent call last):
        snn_sparsity.validation.InputError: eps=8 is not allowed: give a number of at least 0 and of at most 1, such as 8/255
    """
    number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    # Written so that NaN fails.
    if number and at_least <= value <= at_most and value > above and abs(value) <= LARGEST[whole]:
        return
    limits = [f"of at least {at_least}" if at_least > -inf else "", f"above {above}" if above > -inf else "",
              f"of at most {at_most}" if at_most < inf else ""]  # fmt: skip
    wanted = " and ".join(limit for limit in limits if limit)
    asked = f"give a {'whole ' if whole else ''}number {wanted}".rstrip()
    if at_most == 1 and name.rpartition(".")[2] in IN_IMAGE_UNITS:
        asked += f", such as 8/255{' without quotes' if repr(value).startswith(chr(39)) else ''}"
    raise InputError(f"{name}={value!r} is not allowed: {asked}")


def require_cores(name: str, processes: int) -> None:
    """Raise InputError for more processes at a time than ``PROCESSES_A_CORE`` for each core that this one may use.

    Example:
        >>> require_cores("--jobs", 1)
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    most = PROCESSES_A_CORE * cores
    if processes > most:
        raise InputError(f"{name}={processes} is not allowed: give at most {most}, {PROCESSES_A_CORE} for each of the cores here")


def require_train_and_test(root: str) -> None:
    """Raise InputError unless a folder of images has its two parts."""
    for split in ("train", "test"):
        # Unlike Path.is_dir, it is no error to ask it about a name too long to exist.
        if not os.path.isdir(os.path.join(root, split)):
            raise InputError(
                f"data.root={root}: {os.path.join(root, split)} is no folder; give one that holds train/<class>/ and test/<class>/"
            )


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a question that names the known word most like a word, or nothing if none is; dashes in front do not count.

    Example:
        >>> did_you_mean("fti", ["fit", "test"]), did_you_mean("--ouut", ["--out"]), did_you_mean("x", ["fit", "test"])
        (' (did you mean fit?)', ' (did you mean --out?)', '')
    """
    bare = {name.lstrip("-"): name for name in known}
    found = get_close_matches(word.lstrip("-"), bare, n=1, cutoff=0.65)
    return f" (did you mean {bare[found[0]]}?)" if found else ""

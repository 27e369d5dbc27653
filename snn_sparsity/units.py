"""Numbers in units of the image, in which one is the whole range of a pixel: read and written as people do, ``8/255``."""

import math
import re

from snn_sparsity.validation import InputError

NUMBER = r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*"


class Levels(float):
    """A number in units of the image, such as a radius: given as a number or a fraction, and written in grey levels where they are whole.

    Args:
        value: A number, or the text of a number or of a fraction.

    Raises:
        InputError: For a text that is neither, or a denominator of 0.

    Example:
        >>> Levels("8/255"), Levels(" -4 / 255 "), Levels(2 / 255), Levels(0.01), Levels("8/256")
        (8/255, -4/255, 2/255, 0.01, 0.03125)
        >>> Levels("8/255") == 8 / 255
        True
    """

    def __new__(cls, value: "str | float") -> "Levels":
        """Read it."""
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise InputError(f"{value!r} is not allowed: give a number or a fraction such as 8/255")
        if not isinstance(value, str):
            return super().__new__(cls, value)
        parts = re.fullmatch(f"{NUMBER}(?:/{NUMBER})?", value)
        if parts is None:
            raise InputError(f"{value!r} is not allowed: give a number or a fraction such as 8/255")
        if parts[2] is not None and float(parts[2]) == 0:
            raise InputError(f"{value!r} is not allowed: its denominator is 0")
        return super().__new__(cls, float(parts[1]) / float(parts[2] or 1))

    def __repr__(self) -> str:
        """Write it."""
        levels = 255 * self
        near = round(levels) if math.isfinite(levels) else 0
        return f"{near}/255" if 0 < abs(near) < 255 and abs(levels - near) < 1e-6 else float.__repr__(self)

    __str__ = __repr__

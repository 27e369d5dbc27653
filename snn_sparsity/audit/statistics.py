"""Shares with an interval, and paired shares compared."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


class Share(NamedTuple):
    """A share of samples with its 95 % interval.

    Attributes:
        value: In [0,1]; 0 where there are no samples.
        low: Lower end.
        high: Upper end.
        samples: How many it was counted on.
    """

    value: float
    low: float
    high: float
    samples: int

    def includes(self, value: float) -> bool:
        """Return whether the interval holds the value."""
        return self.low <= value <= self.high


def wilson(count: int, samples: int) -> Share:
    """Return k/n with Wilson's 95 % interval, ``(k + z^2/2 +- z sqrt(k(n - k)/n + z^2/4)) / (n + z^2)``, z = 1.96.

    Unlike the normal interval it stays in [0,1] and is not empty at 0 or n. Source: Wilson, JASA 22 (1927), 209-212.

    Args:
        count: k, from 0 to n.
        samples: n; without samples the interval is all of [0,1].

    Raises:
        ValueError: If k is not in [0,n].

    Example:
        >>> share = wilson(8, 10)
        >>> share.value, round(share.low, 4), round(share.high, 4)
        (0.8, 0.4902, 0.9433)
    """
    if samples == 0:
        return Share(0.0, 0.0, 1.0, 0)
    interval = stats.binomtest(count, samples).proportion_ci(method="wilson")
    return Share(count / samples, float(interval.low), float(interval.high), samples)


def mcnemar(first: ArrayLike, second: ArrayLike) -> float:
    """Return the two-sided p-value of McNemar's exact test that two classifications of the same samples are equally often right.

    Only the b samples where the first alone is right and the c where the second alone is right count:
    ``p = min(1, 2 P(Binomial(b + c, 1/2) <= min(b, c)))``. Source: McNemar, Psychometrika 12 (1947), 153-157, in its exact form.

    Args:
        first: n truth values.
        second: n truth values, in the same order.

    Returns:
        In (0,1]; 1 where the two never differ.

    Example:
        Three samples are lost and none is won: 2 / 2^3.

        >>> mcnemar([True, True, True, False], [False, False, False, False])
        0.25
    """
    pairs = list(zip(np.asarray(first, dtype=bool).tolist(), np.asarray(second, dtype=bool).tolist(), strict=True))
    lost, won = pairs.count((True, False)), pairs.count((False, True))
    if lost + won == 0:
        return 1.0
    return float(stats.binomtest(lost, lost + won, 0.5).pvalue)


def in_points(count: float, samples: int) -> float:
    """Return a number of samples as percentage points of all; 0 without samples.

    Example:
        >>> in_points(35, 700)
        5.0
    """
    # Divided last, so that a whole number of points is exact.
    return 100 * count / samples if samples else 0.0

"""Shares with an interval, paired shares compared, and many comparisons at once."""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from snn_sparsity.measure.proportions import Z_95, interval


class Proportion(NamedTuple):
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

    @property
    def percent(self) -> str:
        """The share and its interval in percent, as tables have it.

        Example:
            >>> Proportion(0.5, 0.4, 0.6, 100).percent
            '50.0 [40.0, 60.0]'
        """
        return f"{100 * self.value:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


def wilson(count: int, samples: int) -> Proportion:
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
        return Proportion(0.0, 0.0, 1.0, 0)
    return Proportion(count / samples, *interval(count, samples), samples)


@cache
def mcnemar(gained: int, lost: int) -> float:
    """Return the one-sided p-value of McNemar's exact test that the first of two attacks is no better than the second.

    Only images that one of them alone breaks count: ``p = P(Binomial(b + c, 1/2) >= b)``. Source: McNemar, Psychometrika 12 (1947),
    153-157, in its exact form.

    Args:
        gained: b, images that the first alone breaks.
        lost: c, images that the second alone breaks.

    Returns:
        In (0,1]; 1 where neither breaks one alone.

    Example:
        Three are gained and none is lost: 1 / 2^3.

        >>> mcnemar(3, 0), mcnemar(0, 0)
        (0.125, 1.0)
    """
    from scipy import stats

    return float(stats.binom.sf(gained - 1, gained + lost, 0.5))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values that hold together: the k-th smallest of m times (m - k + 1), never falling, at most 1.

    To reject those below a level keeps the chance of any false rejection below it, however the tests depend on each other.
    Source: Holm, Scandinavian Journal of Statistics 6 (1979), 65-70.

    Example:
        >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
        [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    adjusted, running = [1.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = running
    return adjusted


def paired_difference(gained: int, lost: int, samples: int) -> tuple[float, float]:
    """Return the 95 % interval of ``(b - c) / n``, the difference of two shares of the same n images.

    The adjusted Wald interval, with ``p = (b + 1) / (n + 2)`` and ``q = (c + 1) / (n + 2)``:
    ``p - q +- z sqrt((p + q - (p - q)^2) / (n + 2))``.
    Source: Bonett and Price, Journal of Educational and Behavioral Statistics 37 (2012), 479-488.

    Example:
        >>> low, high = paired_difference(12, 2, 100)
        >>> round(low, 3), round(high, 3)
        (0.024, 0.173)
    """
    p, q = (gained + 1) / (samples + 2), (lost + 1) / (samples + 2)
    half = Z_95 * float(np.sqrt((p + q - (p - q) ** 2) / (samples + 2)))
    return max(-1.0, p - q - half), min(1.0, p - q + half)

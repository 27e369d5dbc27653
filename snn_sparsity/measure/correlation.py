"""Correlation with an interval, undefined where there is nothing to correlate."""

from math import nan
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from snn_sparsity.measure.proportions import Z_95


class Correlation(NamedTuple):
    """A correlation and its 95 % interval; NaN throughout where it is undefined.

    Attributes:
        value: In [-1, 1].
        low: Lower end.
        high: Upper end.
    """

    value: float
    low: float
    high: float


UNDEFINED = Correlation(nan, nan, nan)


def pearson(x: ArrayLike, y: ArrayLike) -> Correlation:
    """Return Pearson's correlation of two series, with Fisher's interval ``tanh(artanh r +- 1.96 / sqrt(n - 3))``.

    Undefined for fewer than four points or a series without spread: a constant correlates with nothing.

    Args:
        x: n numbers.
        y: n numbers.

    Example:
        >>> pearson([1, 2, 3, 4], [2, 4, 6, 8]).value
        1.0
        >>> pearson([1, 2, 3, 4], [5, 5, 5, 5]).value
        nan
    """
    first, second = _series(x), _series(y)
    if _undefined(first) or _undefined(second):
        return UNDEFINED
    from scipy import stats

    return _with_interval(float(stats.pearsonr(first, second).statistic), len(first) - 3, 1.0)


def spearman(x: ArrayLike, y: ArrayLike) -> Correlation:
    """Return Spearman's rank correlation; its interval is Fisher's with variance ``(1 + r^2/2) / (n - 3)`` (Bonett and Wright, 2000).

    Undefined as :func:`pearson` is.

    Example:
        >>> spearman([1, 2, 3, 4], [1, 10, 100, 1000]).value
        1.0
    """
    first, second = _series(x), _series(y)
    if _undefined(first) or _undefined(second):
        return UNDEFINED
    from scipy import stats

    ranked = float(stats.spearmanr(first, second).statistic)
    return _with_interval(ranked, len(first) - 3, 1 + ranked**2 / 2)


def partial(x: ArrayLike, y: ArrayLike, given: ArrayLike) -> Correlation:
    """Return the correlation of x and y once what a straight line in ``given`` explains is taken from both.

    ``r_xy.z = (r_xy - r_xz r_yz) / sqrt((1 - r_xz^2)(1 - r_yz^2))``, with Fisher's interval on n - 4. Undefined for fewer than
    five points, where nothing is left of x or y, and for a constant ``given``: nothing was held fixed.

    Example:
        >>> partial([1, 2, 3, 4, 5], [1, 2, 3, 4, 5], [1, 2, 3, 4, 5]).value
        nan
    """
    first, second, control = _series(x), _series(y), _series(given)
    if len(first) < 5 or any(map(_undefined, (first, second, control))):
        return UNDEFINED
    left, right = _residual(first, control), _residual(second, control)
    if left.std() <= 1e-9 * first.std() or right.std() <= 1e-9 * second.std():
        return UNDEFINED
    return _with_interval(pearson(left, right).value, len(first) - 4, 1.0)


def _series(values: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64)


def _undefined(series: NDArray[np.float64]) -> bool:
    # Relative: rounding of a mean over many entries is no spread.
    return len(series) < 4 or not np.isfinite(series).all() or bool(np.ptp(series) <= 1e-12 * np.abs(series).max())


def _residual(series: NDArray[np.float64], control: NDArray[np.float64]) -> NDArray[np.float64]:
    line = np.stack([np.ones_like(control), control - control.mean()], axis=1)
    coefficients, *_ = np.linalg.lstsq(line, series, rcond=None)
    return series - line @ coefficients


def _with_interval(value: float, freedom: int, variance: float) -> Correlation:
    value = float(np.clip(value, -1.0, 1.0))
    if abs(value) == 1.0 or freedom < 1:
        return Correlation(value, value if freedom >= 1 else nan, value if freedom >= 1 else nan)
    half = Z_95 * (variance / freedom) ** 0.5
    return Correlation(value, float(np.tanh(np.arctanh(value) - half)), float(np.tanh(np.arctanh(value) + half)))

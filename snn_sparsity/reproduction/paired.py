"""Two classifications of the same images compared: difference, interval, p-values of many tests, smallest effect that would be seen."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from snn_sparsity.audit.judge.statistics import mcnemar, paired_difference
from snn_sparsity.measure.proportions import Z_95

POWER = 0.8


class Difference(NamedTuple):
    """A paired difference of two shares, ``first - second``.

    Attributes:
        value: In [-1,1].
        low: Lower end of the 95 % interval.
        high: Upper end.
        p: Of McNemar's exact test, two-sided.
        only_first: Images that the first alone gets right.
        only_second: Images that the second alone gets right.
        images: All images.
    """

    value: float
    low: float
    high: float
    p: float
    only_first: int
    only_second: int
    images: int


def difference(first: Sequence[bool], second: Sequence[bool]) -> Difference:
    """Return the paired difference of two classifications of the same images, with Bonett and Price's adjusted Wald interval.

    With b and c images that one alone gets right, p1 = (b+1)/(n+2), p2 = (c+1)/(n+2):
    ``p1 - p2 +- 1.96 sqrt((p1 + p2 - (p1 - p2)^2) / (n + 2))``; the value itself is (b - c)/n. Source: Bonett and Price, Journal of
    Educational and Behavioral Statistics 37 (2012), 479-488.

    Args:
        first: n truth values.
        second: n truth values of the same images.

    Raises:
        ValueError: If there are none, or not as many.

    Example:
        >>> found = difference([True] * 6 + [False] * 4, [True] * 2 + [False] * 8)
        >>> found.only_first, found.only_second, found.value, found.p
        (4, 0, 0.4, 0.125)
    """
    one, other = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if one.shape != other.shape or one.size == 0:
        raise ValueError(f"{one.size} and {other.size} outcomes are no pairs")
    n, b, c = one.size, int((one & ~other).sum()), int((~one & other).sum())
    return Difference((b - c) / n, *paired_difference(b, c, n), min(1.0, 2 * mcnemar(max(b, c), min(b, c))), b, c, n)


def power(effect: float, images: int, discordant: float, alpha: float) -> float:
    """Return how probable McNemar's exact test finds a true difference, where a share of images is judged differently.

    The number m of discordant images is Binomial(n, psi), of which Binomial(m, (1 + d/psi)/2) speak for the first.

    Args:
        effect: d, from 0 to psi.
        images: n.
        discordant: psi, in (0,1].
        alpha: Level of the test.

    Example:
        >>> power(0.0, 500, 0.1, 0.05) < 0.05 < 0.9 < power(0.08, 500, 0.1, 0.05)
        True
    """
    counts = np.arange(images + 1)
    share = (1 + effect / discordant) / 2
    # The largest number that rejects on the lower side; -1 where none does.
    edge = stats.binom.ppf(alpha / 2, counts, 0.5)
    edge -= 2 * stats.binom.cdf(edge, counts, 0.5) > alpha
    rejected: NDArray[np.float64] = stats.binom.cdf(edge, counts, share) + stats.binom.sf(counts - edge - 1, counts, share)
    return float((stats.binom.pmf(counts, images, discordant) * rejected).sum())


def smallest_effect(images: int, discordant: float, alpha: float) -> float:
    """Return the smallest true difference that McNemar's exact test would find in 80 % of experiments; NaN if it would find none.

    Args:
        images: n.
        discordant: Share of images that are judged differently, in (0,1].
        alpha: Level of the test, corrected for the number of tests.

    Example:
        >>> round(smallest_effect(500, 0.1, 0.05), 3), round(smallest_effect(48, 0.1, 0.05), 3)
        (0.041, nan)
    """
    if power(discordant, images, discordant, alpha) < POWER:
        return float("nan")
    found: float = optimize.brentq(lambda effect: power(effect, images, discordant, alpha) - POWER, 0.0, discordant, xtol=1e-5)
    return found


class Slope(NamedTuple):
    """Change of accuracy with zeros, with its 95 % interval: in shares per share."""

    value: float
    low: float
    high: float


def slope(zeros: Sequence[float], outcomes: Sequence[Sequence[bool]], groups: Sequence[int]) -> Slope:
    """Return the least-squares slope of accuracy on zeros with an intercept for each group, over points judged on the same images.

    The slope is linear in the accuracies, hence the mean over images of each image's own slope, ``s_i = sum_k w_k c_ki``: its
    interval, ``1.96 sd(s_i) / sqrt(n)``, holds though all points share the images.

    Args:
        zeros: k shares.
        outcomes: [k][n], whether each image is classified right at each point.
        groups: k numbers; a slope is sought within groups.

    Returns:
        The slope; NaN where zeros do not vary within any group.

    Example:
        >>> slope([0.0, 1.0], [[True, True, False, False], [True, True, True, False]], [0, 0]).value
        0.25
    """
    x, right, group = np.asarray(zeros, dtype=float), np.asarray(outcomes, dtype=float), np.asarray(groups)
    centred = x - np.array([x[group == each].mean() for each in group])
    if (centred**2).sum() <= 1e-12:
        return Slope(float("nan"), float("nan"), float("nan"))
    each = centred @ right / (centred**2).sum()
    half = Z_95 * each.std(ddof=1) / len(each) ** 0.5
    return Slope(float(each.mean()), float(each.mean() - half), float(each.mean() + half))


class Pooled(NamedTuple):
    """An effect over networks of several kinds that were judged on the same images.

    Attributes:
        value: In [-1,1].
        low: Lower end of the 95 % interval.
        high: Upper end.
        seen: The smallest true effect that 80 % of such experiments would tell from 0.
        sets: k, networks of each kind.
        images: n.
    """

    value: float
    low: float
    high: float
    seen: float
    sets: int
    images: int


def pooled(parts: Sequence[Sequence[Sequence[float] | NDArray[np.float64]]]) -> Pooled:
    """Return a sum over c kinds of networks of means over k networks of each, with an interval over other networks and other images.

    With q[c][k][n] what a network adds on an image, s^2 the mean over kinds of var_k(mean_n q), and d[n] = sum_c mean_k q:

    ``v_networks = c s^2 / k`` with c (k - 1) degrees of freedom, ``v_images = var_n(d) / n`` with n - 1; the interval is
    ``value +- sqrt(t_networks^2 v_networks + t_images^2 v_images)``, each variance with the quantile of its own degrees of freedom (Howe,
    Journal of the American Statistical Association 69 (1974), 789-794). Images count in both, so that it is rather too wide. One network
    of a kind has no variance: the interval is about other images alone. As in :func:`difference`, two images that are judged
    differently, once each way, are added for it: equal outcomes prove little.

    Args:
        parts: q. Kinds that add nothing, 0 on each image, count as no kinds.

    Raises:
        ValueError: If there are none, or fewer than two images.

    Example:
        Two networks of one kind and two of another, on four images.

        >>> found = pooled([[[0, 1, 0, 0], [0, 1, 1, 0]], [[0, 0, 0, 0], [0, -1, 0, 0]]])
        >>> found.value, found.sets, found.images
        (0.25, 2, 4)
    """
    q = np.asarray(parts, dtype=float)
    if q.ndim != 3 or not q.shape[0] or not q.shape[1] or q.shape[2] < 2:
        raise ValueError(f"parts of shape {q.shape} are no networks on two images or more")
    (_, k, n), d = q.shape, q.mean(1).sum(0)
    kinds = q[np.abs(q).sum((1, 2)) > 0]
    images = np.append(d, [1, -1])
    variances = [(images.var() / len(images), n - 1)]
    if k > 1 and len(kinds):
        variances.append((len(kinds) * kinds.mean(2).var(1, ddof=1).mean() / k, len(kinds) * (k - 1)))
    centre = float(images.mean())
    half, missed = (float(sum(stats.t.ppf(share, freedom) ** 2 * v for v, freedom in variances) ** 0.5) for share in (0.975, POWER))
    return Pooled(float(d.mean()), centre - half, centre + half, half + missed, k, n)


def signed(points: float) -> str:
    """Return a difference in points with its sign, or that it is undefined.

    Example:
        >>> signed(1.25), signed(-0.01), signed(float("nan"))
        ('+1.2', '+0.0', 'undefined')
    """
    return "undefined" if math.isnan(points) else f"{round(points, 1) + 0.0:+.1f}"

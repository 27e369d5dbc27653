import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from snn_sparsity.measure.correlation import partial, pearson, spearman

RNG = np.random.default_rng(0)
X, Z = RNG.normal(size=(2, 30))
Y = 0.6 * X + RNG.normal(size=30)


def test_by_hand():
    # Deviations -1, 0, 1, 0 and 0, 1, 1, -2: r = 1 / sqrt(2 * 6).
    assert pearson([1, 2, 3, 2], [3, 4, 4, 1]).value == pytest.approx(1 / math.sqrt(12))
    # artanh(0.288675) +- 1.959964 / sqrt(4 - 3).
    assert pearson([1, 2, 3, 2], [3, 4, 4, 1]).low == pytest.approx(math.tanh(math.atanh(1 / math.sqrt(12)) - 1.959964), rel=1e-6)


def test_pearson_equals_scipy():
    theirs = stats.pearsonr(X, Y)
    interval = theirs.confidence_interval()
    assert pearson(X, Y) == pytest.approx((theirs.statistic, interval.low, interval.high))


def test_spearman_equals_scipy():
    assert spearman(X, Y).value == pytest.approx(stats.spearmanr(X, Y).statistic)
    low, high = spearman(X, Y)[1:]
    assert -1 < low < spearman(X, Y).value < high < 1
    # Wider than Pearson's at the same value.
    assert high - low > pearson(stats.rankdata(X), stats.rankdata(Y)).high - pearson(stats.rankdata(X), stats.rankdata(Y)).low


def test_partial_equals_its_formula():
    xy, xz, yz = (np.corrcoef(one, other)[0, 1] for one, other in ((X, Y), (X, Z), (Y, Z)))
    assert partial(X, Y, Z).value == pytest.approx((xy - xz * yz) / math.sqrt((1 - xz**2) * (1 - yz**2)))


def test_partial_removes_a_common_cause():
    common = RNG.normal(size=200)
    x, y = common + 0.1 * RNG.normal(size=(2, 200))
    assert pearson(x, y).value > 0.9
    assert abs(partial(x, y, common).value) < 0.2


def test_with_a_constant_control_nothing_was_held_fixed():
    assert math.isnan(partial(X, Y, np.ones(30)).value)


@pytest.mark.parametrize("method", [pearson, spearman, lambda x, y: partial(x, y, np.arange(len(x)))])
@pytest.mark.parametrize(
    ("x", "y"),
    [([1, 2, 3, 4, 5], [7, 7, 7, 7, 7]), ([0, 0, 0, 0, 0], [1, 2, 3, 4, 5]), ([1, 2, 3], [1, 2, 3]),
     ([1, 2, math.nan, 3, 4], [1, 2, 3, 4, 5]),
     ([0.3 + 1e-17 * k for k in range(5)], [1, 2, 3, 4, 5])],
)  # fmt: skip
def test_without_spread_it_is_undefined(method, x, y):
    assert all(math.isnan(part) for part in method(x, y))


@given(st.lists(st.floats(-1e3, 1e3), min_size=4, max_size=12), st.floats(0.1, 10), st.floats(-10, 10))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_a_line_correlates_perfectly_or_not_at_all(x, slope, offset):
    value = pearson(x, [slope * number + offset for number in x]).value
    assert math.isnan(value) or value == pytest.approx(1.0, abs=1e-6)

from fractions import Fraction
from math import comb, sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_sparsity.audit.statistics import in_points, mcnemar, wilson

Z = 1.959963984540054
counts = st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def discordant(lost, won, agreeing=3):
    first = [True] * lost + [False] * won + [True] * agreeing
    second = [False] * lost + [True] * won + [True] * agreeing
    return first, second


def two_sided(lost, won):
    """Add up every table that is no likelier than the one seen."""
    ways = [comb(lost + won, k) for k in range(lost + won + 1)]
    return float(Fraction(sum(way for way in ways if way <= ways[lost]), 2 ** (lost + won)))


def test_wilson_by_hand():
    # (5 + 1.96^2/2 -+ 1.96 sqrt(5 * 5/10 + 1.96^2/4)) / (10 + 1.96^2) = (6.9207 -+ 3.6407) / 13.8415
    share = wilson(5, 10)
    assert (share.value, share.samples) == (0.5, 10)
    assert (share.low, share.high) == pytest.approx((0.23659, 0.76341), abs=1e-5)


def test_wilson_at_the_ends():
    # At 0 of n the upper end is z^2 / (n + z^2).
    assert wilson(0, 100)[:2] == (0.0, pytest.approx(0.0, abs=1e-12))
    assert wilson(0, 100).high == pytest.approx(Z**2 / (100 + Z**2))
    assert wilson(100, 100).low == pytest.approx(100 / (100 + Z**2))
    assert wilson(0, 0) == (0.0, 0.0, 1.0, 0)


@given(counts)
@settings(max_examples=50, deadline=None, derandomize=True)
def test_wilson_inverts_the_score_test(of):
    count, samples = of
    share = wilson(count, samples)
    assert 0 <= share.low <= count / samples <= share.high <= 1 + 1e-12
    for end in (share.low, share.high):
        assert abs(count / samples - end) == pytest.approx(Z * sqrt(max(end * (1 - end), 0) / samples), abs=1e-7)


def test_wilson_includes_its_ends_only():
    share = wilson(5, 10)
    assert share.includes(share.low)
    assert share.includes(share.high)
    assert not share.includes(share.low - 1e-9)
    assert not share.includes(share.high + 1e-9)


@pytest.mark.parametrize(("lost", "won", "p"), [(0, 0, 1.0), (1, 0, 1.0), (1, 1, 1.0), (3, 0, 0.25), (5, 1, 14 / 64), (8, 0, 2 / 256)])
def test_mcnemar_by_hand(lost, won, p):
    assert mcnemar(*discordant(lost, won)) == pytest.approx(p, rel=1e-12)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 5))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_mcnemar_adds_up_the_binomial(lost, won, agreeing):
    first, second = discordant(lost, won, agreeing)
    assert mcnemar(first, second) == pytest.approx(two_sided(lost, won), rel=1e-9)
    assert mcnemar(second, first) == mcnemar(first, second)


def test_mcnemar_needs_pairs():
    with pytest.raises(ValueError, match="shorter"):
        mcnemar([True, False], [True])


def test_whole_points_are_exact():
    assert [in_points(k * n // 100, n) for k in (2, 5, 6) for n in (100, 700, 1000)] == [2, 2, 2, 5, 5, 5, 6, 6, 6]
    assert in_points(2, 1000) == 0.2
    assert in_points(0, 0) == 0

from fractions import Fraction
from math import comb, sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_sparsity.audit.judge.statistics import holm, mcnemar, paired_difference, wilson

Z = 1.959963984540054
counts = st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


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


@pytest.mark.parametrize(("gained", "lost", "p"), [(0, 0, 1.0), (1, 0, 1 / 2), (1, 1, 3 / 4), (0, 3, 1.0), (5, 1, 7 / 64), (8, 0, 1 / 256)])
def test_mcnemar_by_hand(gained, lost, p):
    assert mcnemar(gained, lost) == pytest.approx(p, rel=1e-12)


@given(st.integers(0, 40), st.integers(0, 40))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_mcnemar_adds_up_the_binomial(gained, lost):
    tail = sum(comb(gained + lost, k) for k in range(gained, gained + lost + 1))
    assert mcnemar(gained, lost) == pytest.approx(float(Fraction(tail, 2 ** (gained + lost))), rel=1e-9)


def test_one_image_is_never_significant_whatever_the_number_of_images():
    assert mcnemar(1, 0) == 0.5


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_holm_rejects_what_its_step_down_rejects(p_values):
    """The textbook procedure: go up the sorted p-values while p <= level / (number left)."""
    adjusted = holm(p_values)
    for level in (0.01, 0.05, 0.3):
        rejected = set()
        for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
            if p_values[place] * (len(p_values) - rank) > level:
                break
            rejected.add(place)
        assert {place for place, p in enumerate(adjusted) if p <= level} == rejected


def test_the_interval_of_a_gain_by_hand():
    # p = 11/102, q = 1/102: difference 10/102, half-width 1.96 sqrt((12/102 - (10/102)^2) / 102)
    low, high = paired_difference(10, 0, 100)
    middle, half = 10 / 102, Z * sqrt((12 / 102 - (10 / 102) ** 2) / 102)
    assert (low, high) == pytest.approx((middle - half, middle + half))

"""Paired comparisons against hand work, simulation and other people's code."""

import math

import numpy as np
import pytest
from scipy import stats

from snn_sparsity.audit.judge.statistics import holm
from snn_sparsity.reproduction.paired import difference, power, slope, smallest_effect


def test_the_interval_holds_the_truth_as_often_as_it_says():
    random, held = np.random.default_rng(0), 0
    for _ in range(1000):
        first = random.random(200) < 0.5
        second = np.where(random.random(200) < 0.2, random.random(200) < 0.3, first)
        found = difference(first, second)
        truth = 0.2 * (0.5 - 0.3)
        held += found.low <= truth <= found.high
    assert 0.93 <= held / 1000 <= 0.98


def test_nothing_differs():
    found = difference([True, False], [True, False])
    assert (found.value, found.p, found.only_first, found.only_second) == (0, 1, 0, 0)
    assert found.low < 0 < found.high
    for wrong in (([], []), ([True], [True, False])):
        with pytest.raises(ValueError, match="no pairs"):
            difference(*wrong)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], []),
        ([0.5], [0.5]),
        # By hand: 4 x 0.005, 3 x 0.01, then 2 x 0.03 and 1 x 0.04, which may not fall below it.
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.9, 0.8], [1.0, 1.0]),
    ],
)
def test_holm_by_hand(given, expected):
    assert holm(given) == pytest.approx(expected)


def test_holm_never_lowers_and_keeps_the_order():
    given = np.random.default_rng(1).random(50)
    corrected = np.array(holm(list(given)))
    assert (corrected >= given).all()
    assert (np.diff(corrected[np.argsort(given)]) >= 0).all()


@pytest.mark.parametrize(("effect", "discordant", "alpha"), [(0.05, 0.1, 0.05), (0.0, 0.2, 0.05), (0.08, 0.15, 0.001), (0.1, 0.1, 0.01)])
def test_power_against_simulation(effect, discordant, alpha):
    random, n = np.random.default_rng(2), 300
    m = random.binomial(n, discordant, 20000)
    b = random.binomial(m, (1 + effect / discordant) / 2)
    p = np.minimum(1, 2 * stats.binom.cdf(np.minimum(b, m - b), m, 0.5))
    assert power(effect, n, discordant, alpha) == pytest.approx((p <= alpha).mean(), abs=0.012)


def test_the_smallest_effect_is_seen_in_four_of_five_and_needs_images():
    found = smallest_effect(500, 0.1, 0.05)
    assert power(found, 500, 0.1, 0.05) == pytest.approx(0.8, abs=1e-3)
    assert smallest_effect(1000, 0.1, 0.05) < found < smallest_effect(500, 0.1, 0.001)
    # Five discordant images never reach p = 0.05 (2 / 2^5 = 0.0625).
    assert math.isnan(smallest_effect(48, 0.05, 0.05))


def test_slope_is_that_of_dummy_regression_and_its_interval_that_of_a_bootstrap():
    random = np.random.default_rng(3)
    zeros, groups = random.random(10), np.repeat([0, 1], 5)
    base = random.random((2, 400))
    outcomes = np.array([base[group] < 0.4 + 0.2 * x + 0.1 * group for x, group in zip(zeros, groups, strict=True)])
    found = slope(zeros, outcomes, groups)
    design = np.column_stack([zeros, groups == 0, groups == 1])
    assert found.value == pytest.approx(np.linalg.lstsq(design, outcomes.mean(1), rcond=None)[0][0])
    draws = random.integers(400, size=(2000, 400))
    boot = [np.linalg.lstsq(design, outcomes[:, draw].mean(1), rcond=None)[0][0] for draw in draws]
    assert found.high - found.value == pytest.approx(1.96 * np.std(boot), rel=0.1)
    assert math.isnan(slope([0.5, 0.5], outcomes[:2], [0, 0]).value)
    assert math.isnan(slope([0.5, 0.7], outcomes[:2], [0, 1]).value)

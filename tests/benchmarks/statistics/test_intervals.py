"""Bootstrap intervals: they are of the right width, and it is questions that are resampled."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eva_hpc.benchmarks.statistics.intervals import interval


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution():
    values = np.random.default_rng(1).normal(5, 2, size=400)
    low, high = interval(values)
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.02)
    assert high == pytest.approx(values.mean() + half, abs=0.02)


def test_the_interval_agrees_with_scipy():
    from scipy.stats import bootstrap

    values = np.random.default_rng(2).exponential(size=60)
    theirs = bootstrap((values,), np.mean, method="percentile", n_resamples=10_000, rng=1).confidence_interval
    assert interval(values) == pytest.approx((theirs.low, theirs.high), abs=0.015)


def test_a_ratio_is_resampled_by_question():
    random = np.random.default_rng(3)
    counts = random.integers(1, 6, size=200)
    sums = counts * random.random(200)
    low, high = interval(sums, counts)
    ratio = sums.sum() / counts.sum()
    error = np.sqrt((((sums - ratio * counts) / counts.mean()) ** 2).mean() / 200)  # delta method
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.05)
    assert low < ratio < high


def test_judgments_of_one_question_do_not_count_as_independent():
    values = np.random.default_rng(4).normal(size=50)
    once, thrice = interval(values), interval(3 * values, np.full(50, 3))
    assert once == pytest.approx(thrice)


def test_a_higher_level_is_wider_and_the_seed_decides():
    values = list(np.random.default_rng(5).normal(size=30))
    low, high = interval(values, level=0.99)
    inner = interval(values, level=0.5)
    assert low < inner[0] < inner[1] < high
    assert interval(values) == interval(values)
    assert interval(values) != interval(values, seed=1)


@pytest.mark.parametrize(("sums", "counts"), [([], None), ([1.0], None), ([1.0, 0.0], [1, 0]), ([0.0, 0.0], [0, 0])], ids=str)
def test_fewer_than_two_judged_questions_have_no_interval(sums, counts):
    assert interval(sums, counts) is None


def test_questions_without_judgments_do_not_matter_much():
    low, high = interval([1.0, 0.0, 1.0, 0.0, 0.0], [1, 1, 1, 1, 0])
    assert 0 <= low < 0.5 < high <= 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=2, max_size=30))
def test_an_interval_lies_within_the_values(values):
    low, high = interval(values, resamples=200)
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9

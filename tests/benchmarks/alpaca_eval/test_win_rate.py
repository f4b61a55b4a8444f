"""The win rate, its standard error and the discrete win rate."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eva_hpc.benchmarks.alpaca_eval.win_rate import average_length, win_rate

PREFERENCES = st.floats(1, 2)


def test_a_small_example():
    found = win_rate([1.0, 2.0, 1.5, 1.75, math.nan])

    assert found.win_rate == pytest.approx(56.25)
    assert found.standard_error == pytest.approx(100 * statistics.stdev([0, 1, 0.5, 0.75]) / 2)
    assert found.discrete_win_rate == pytest.approx(62.5)
    assert (found.n_wins, found.n_losses, found.n_draws, found.n) == (2, 1, 1, 4)


@settings(deadline=None)
@given(st.lists(PREFERENCES, min_size=1))
def test_bounds_and_counts(preferences):
    found = win_rate(preferences)

    assert 0 <= found.win_rate <= 100
    assert 0 <= found.discrete_win_rate <= 100
    assert found.n_wins + found.n_losses + found.n_draws == found.n == len(preferences)


@settings(deadline=None)
@given(st.lists(PREFERENCES, min_size=2))
def test_seen_from_the_other_side_it_is_the_rest(preferences):
    found, other = win_rate(preferences), win_rate([3 - value for value in preferences])

    assert found.win_rate + other.win_rate == pytest.approx(100)
    assert found.standard_error == pytest.approx(other.standard_error, abs=1e-9)


def test_undefined_numbers_are_not_a_number():
    none, one = win_rate([]), win_rate([1.2])

    assert math.isnan(none.win_rate)
    assert math.isnan(none.discrete_win_rate)
    assert one.win_rate == pytest.approx(20)
    assert math.isnan(one.standard_error)


def test_length_in_characters_is_cut():
    assert average_length(["ab", "äöü", "𝄞"]) == 2
    assert average_length(["a", "ab"]) == 1
    assert average_length([]) is None

"""Too little coverage gives no number but a reason."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eva_hpc.benchmarks.statistics.coverage import Coverage


@pytest.mark.parametrize(("expected", "judged"), [(100, 95), (160, 152), (20, 19), (1, 1), (3, 3)])
def test_coverage_at_the_threshold_is_enough(expected, judged):
    assert Coverage(expected, judged).refusal() is None


def test_a_refusal_says_how_much_is_missing_and_why():
    coverage = Coverage(160, 40, {"no rating": 110, "API failure": 10, "no answer": 0}, unit="turns")
    assert coverage.share == 0.25
    told = "only 40 of 160 turns have a judgment: 25.0%, below 95% (110 no rating, 10 API failure)"
    assert coverage.refusal() == told


def test_a_share_just_below_the_threshold_is_not_rounded_up_to_it():
    assert Coverage(10_000, 9_496).refusal() == "only 9496 of 10000 questions have a judgment: 94.9%, below 95%"
    assert Coverage(1000, 974).refusal(0.975) == "only 974 of 1000 questions have a judgment: 97.4%, below 97.5%"


@pytest.mark.parametrize("least", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("expected", [0, 10])
def test_nothing_judged_is_refused_whatever_the_threshold(expected, least):
    assert Coverage(expected, 0).refusal(least) == f"only 0 of {expected} questions have a judgment"
    assert Coverage(expected, 0).share == 0


@given(st.integers(1, 1000), st.data())
def test_a_refusal_is_what_lies_below_the_threshold(expected, data):
    judged = data.draw(st.integers(1, expected))
    least = data.draw(st.floats(0, 1))
    assert (Coverage(expected, judged).refusal(least) is None) == (judged / expected >= least)

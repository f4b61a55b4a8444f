from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eva_hpc.method.informativeness import METRICS, NEEDS_IMPLICIT, informativeness, weights

REWARDS = {"easy": [1.0, 1.0, 1.0], "split": [0.0, 1.0, 0.5], "hard": [0.0, 0.0, 0.2]}
IMPLICIT = {"easy": [0.3, 0.1, 0.2], "split": [0.1, 0.4, 9.0], "hard": [0.6, 7.0, -0.1]}

reward = st.floats(-1e6, 1e6)
rewards_of_prompts = st.dictionaries(st.text(min_size=1), st.lists(reward, min_size=1, max_size=10), min_size=1)


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("A_min", {"easy": 0.0, "split": 1.0, "hard": 0.2}),
        ("A_avg", {"easy": 0.0, "split": 0.5, "hard": 0.2 - 0.2 / 3}),
        ("A_dts", {"easy": 0.0, "split": 0.5, "hard": 0.2}),
        ("var", {"easy": 0.0, "split": 1 / 6, "hard": 0.04 * 2 / 9}),
        ("avg", {"easy": 1.0, "split": 0.5, "hard": 0.2 / 3}),
        ("uniform", {"easy": 1.0, "split": 1.0, "hard": 1.0}),
        ("inv_A_min", {"easy": 1.0, "split": 0.0, "hard": 0.8}),
        ("inv_avg", {"easy": 0.0, "split": 1 - (0.5 - 0.2 / 3) / (1 - 0.2 / 3), "hard": 1.0}),
        ("alignment_potential", {"easy": 0.0, "split": 1.0 - (0.4 - 0.1), "hard": 0.2 - (-0.1 - 0.6)}),
    ],
)
def test_each_metric_has_its_formula(metric, expected):
    assert informativeness(metric, REWARDS, IMPLICIT) == pytest.approx(expected)


def test_every_metric_is_covered_by_a_formula_above():
    assert set(METRICS) == {"A_min", "A_avg", "A_dts", "var", "avg", "uniform", "inv_avg", "inv_A_min", "alignment_potential"}
    assert set(METRICS) >= NEEDS_IMPLICIT


@pytest.mark.parametrize(
    ("metric", "expected"),
    [("A_min", 0), ("A_avg", 0), ("A_dts", 0), ("var", 0), ("avg", 0.7), ("alignment_potential", 0)],
)
def test_one_response_says_nothing_about_the_spread(metric, expected):
    assert informativeness(metric, {"a": [0.7]}, {"a": [0.1]}) == {"a": expected}
    assert informativeness(metric, {"a": [None, 0.7, None]}, {"a": [8.0, 0.1, 9.0]}) == {"a": expected}


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_a_response_without_reward_is_not_used(metric):
    gaps = {"easy": [None, 1.0, 1.0, 1.0], "split": [0.0, None, 1.0, 0.5], "hard": [0.0, 0.0, 0.2, None]}
    implicit = {"easy": [99.0, *IMPLICIT["easy"]], "split": [0.1, 99.0, 0.4, 9.0], "hard": [*IMPLICIT["hard"], 99.0]}

    assert informativeness(metric, gaps, implicit) == informativeness(metric, REWARDS, IMPLICIT)


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_a_prompt_without_any_reward_is_left_out(metric):
    more = {"none": [], **REWARDS, "all None": [None, None]}

    assert informativeness(metric, more, IMPLICIT) == informativeness(metric, REWARDS, IMPLICIT)
    assert informativeness(metric, {"none": [None]}, {}) == informativeness(metric, {}, {}) == {}


@pytest.mark.parametrize("metric", sorted(set(METRICS) - {"avg", "inv_avg"}))
def test_prompts_whose_responses_are_all_equally_good_weigh_the_same(metric):
    """Also where the mean of equal numbers, computed carelessly, is not that number: 0.1 + … + 0.1 over 6, say."""
    rewards = {"a": [0.1] * 6, "b": [0.7] * 3, "c": [1e6 / 3] * 7, "d": [-0.3] * 10}

    values = informativeness(metric, rewards, rewards)

    assert set(weights(values).values()) == {0.25}


def test_what_the_policy_prefers_more_than_the_reward_has_a_negative_potential():
    values = informativeness(
        "alignment_potential",
        {"learnt": [1.0, 0.0], "even": [1.0, 0.0], "inverted": [1.0, 0.0]},
        {"learnt": [3.0, 0.0], "even": [1.0, 0.0], "inverted": [-1.0, 0.0]},
    )

    assert values == {"learnt": -2.0, "even": 0.0, "inverted": 2.0}
    assert weights(values) == pytest.approx({"learnt": 0.0, "even": 1 / 3, "inverted": 2 / 3})


@pytest.mark.parametrize(
    ("implicit", "message"),
    [
        (None, "alignment_potential needs the implicit rewards"),
        ({}, "prompt p has 2 rewards but 0 implicit rewards"),
        ({"p": [0.0, 1.0, 2.0]}, "prompt p has 2 rewards but 3 implicit rewards"),
        ({"p": [0.0, math.nan]}, "prompt p: the implicit reward of response 1 is nan"),
    ],
)
def test_implicit_rewards_that_are_needed_are_checked(implicit, message):
    with pytest.raises(ValueError, match=message):
        informativeness("alignment_potential", {"p": [0.0, 1.0]}, implicit)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_not_finite_is_refused_with_the_prompts_name(bad):
    with pytest.raises(ValueError, match="prompt p7: the reward of response 1"):
        informativeness("A_min", {"p1": [0.0, 1.0], "p7": [None, bad]})


def test_an_unknown_metric_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown informativeness metric 'a_min': choose from A_min, A_avg"):
        informativeness("a_min", REWARDS)


def test_weights_are_minmax_normalised_to_sum_one():
    assert weights({"a": 1.0, "b": 3.0, "c": 2.0}) == pytest.approx({"a": 0.0, "b": 2 / 3, "c": 1 / 3})


def test_equal_values_give_uniform_weights():
    assert weights({"a": 0.3, "b": 0.3, "c": 0.3, "d": 0.3}) == {"a": 0.25, "b": 0.25, "c": 0.25, "d": 0.25}


def test_one_prompt_has_all_the_weight_and_no_prompts_have_none():
    assert weights({"a": 0.0}) == {"a": 1.0}
    assert weights({}) == {}


def test_a_value_that_is_not_finite_is_refused_with_the_prompts_name():
    with pytest.raises(ValueError, match="prompt b: its informativeness is nan"):
        weights({"a": 1.0, "b": math.nan})


@given(rewards_of_prompts, st.sampled_from(sorted(METRICS)))
def test_weights_of_any_metric_are_a_distribution_over_exactly_the_prompts(rewards, metric):
    result = weights(informativeness(metric, rewards, rewards))

    assert set(result) == set(rewards)
    assert all(weight >= 0 for weight in result.values())
    assert math.fsum(result.values()) == pytest.approx(1)


@given(rewards_of_prompts, st.sampled_from(sorted(METRICS)))
def test_the_order_of_prompts_changes_no_weight(rewards, metric):
    backwards = dict(reversed(rewards.items()))

    assert weights(informativeness(metric, rewards, rewards)) == weights(informativeness(metric, backwards, rewards))


@given(st.lists(reward, min_size=2, max_size=10))
def test_metrics_agree_with_the_statistics_module(values):
    measured = {metric: informativeness(metric, {"a": values})["a"] for metric in ("A_min", "avg", "var", "A_avg")}

    assert measured["A_min"] == max(values) - min(values)
    assert measured["avg"] == pytest.approx(statistics.fmean(values), abs=1e-6)
    assert measured["var"] == pytest.approx(statistics.pvariance(values), rel=1e-6, abs=1e-6)
    assert measured["A_avg"] == pytest.approx(max(values) - statistics.fmean(values), abs=1e-6)

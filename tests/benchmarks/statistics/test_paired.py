"""Paired comparison: what it must keep to, and that it calls noise noise."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eva_hpc.benchmarks.statistics.paired import across_seeds, compare, holm, over_seeds

FEW = 400  # resamples where the exact interval does not matter


def arm(values):
    return {str(number): float(value) for number, value in enumerate(values)}


def normal(seed, size, loc=0.0):
    return np.random.default_rng(seed).normal(loc, size=size)


def test_the_difference_is_that_of_the_means():
    found = compare(arm([3, 5, 7]), arm([1, 5, 3]))
    assert (found.difference, found.n, found.unmatched) == (2, 3, 0)
    assert (found.low, found.high) == (0, 4)
    assert found.p_value == 0.5  # of the 8 ways to flip the signs of 2, 0, 4, four are as extreme


def test_identical_arms_do_not_differ():
    found = compare(arm(normal(1, 50)), arm(normal(1, 50)), resamples=FEW)
    assert (found.difference, found.low, found.high, found.p_value) == (0, 0, 0, 1)
    assert found.to_json()["beyond_noise"] is False


def test_a_small_difference_on_the_same_questions_is_found_where_questions_differ_a_lot():
    hard = 10 * normal(1, 100)
    found = compare(arm(hard + 0.5 + normal(2, 100)), arm(hard), resamples=2000)
    assert found.p_value < 0.01
    assert found.low > 0


def test_questions_judged_in_one_arm_only_are_counted_and_left_out():
    found = compare({"a": 1.0, "b": 3.0, "c": 100.0}, {"d": -100.0, "a": 0.0, "b": 1.0}, resamples=FEW)
    assert (found.difference, found.n, found.unmatched) == (1.5, 2, 2)


@pytest.mark.parametrize(
    ("a", "b", "n", "unmatched"), [({}, {}, 0, 0), ({"a": 1.0}, {"a": 2.0}, 1, 0), ({"a": 1.0}, {"b": 2.0}, 0, 2)]
)
def test_too_few_questions_have_no_difference_but_a_reason(a, b, n, unmatched):
    found = compare(a, b)
    assert (found.difference, found.low, found.high, found.p_value) == (None, None, None, None)
    assert (found.n, found.unmatched) == (n, unmatched)
    assert found.reason == f"fewer than 2 questions are judged in both arms: {n}"
    assert found.to_json()["ci"] is found.to_json()["beyond_noise"] is None


def test_the_exact_p_value_is_scipys():
    from scipy.stats import permutation_test

    a, b = normal(1, 9, 0.5), normal(2, 9)
    theirs = permutation_test((a, b), lambda x, y: np.mean(x) - np.mean(y), permutation_type="samples", n_resamples=np.inf)
    assert compare(arm(a), arm(b), resamples=512).p_value == pytest.approx(theirs.pvalue)


def test_the_random_p_value_is_near_that_of_the_t_test():
    from scipy.stats import ttest_rel

    a, b = normal(3, 80, 0.25), normal(4, 80)
    assert compare(arm(a), arm(b)).p_value == pytest.approx(ttest_rel(a, b).pvalue, abs=0.02)


def test_the_interval_is_that_of_the_mean_of_differences():
    a, b = normal(5, 400, 1), normal(6, 400)
    found = compare(arm(a), arm(b))
    half = 1.96 * (a - b).std() / 20
    assert (found.low, found.high) == pytest.approx((found.difference - half, found.difference + half), abs=0.015)


VALUES = st.lists(
    st.tuples(st.floats(-10, 10), st.floats(-10, 10), st.floats(0.1, 3), st.floats(0.1, 3)), min_size=2, max_size=25
)


@settings(max_examples=40, deadline=None)
@given(VALUES, st.randoms(use_true_random=False))
def test_swapping_the_arms_changes_signs_and_the_order_of_questions_nothing(values, shuffler):
    a, b, a_weights, b_weights = (arm(column) for column in zip(*values, strict=True))
    found = compare(a, b, a_weights, b_weights, resamples=FEW)
    back = compare(b, a, b_weights, a_weights, resamples=FEW)
    assert (back.difference, back.p_value) == (-found.difference, found.p_value)
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low))
    names = list(a)
    shuffler.shuffle(names)
    assert compare({name: a[name] for name in names}, b, a_weights, b_weights, resamples=FEW) == found


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(-10, 10), st.floats(-10, 10)), min_size=5, max_size=25))
def test_the_interval_contains_the_difference(values):
    a, b = (arm(column) for column in zip(*values, strict=True))
    found = compare(a, b, resamples=FEW)
    assert found.low - 1e-9 <= found.difference <= found.high + 1e-9
    assert 0 < found.p_value <= 1


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.floats(-10, 10), st.floats(-10, 10)), min_size=2, max_size=15), st.floats(0.5, 4))
def test_equal_weights_are_no_weights(values, weight):
    a, b = (arm(column) for column in zip(*values, strict=True))
    same = dict.fromkeys(a, weight)
    plain, weighted = compare(a, b, resamples=FEW), compare(a, b, same, same, resamples=FEW)
    assert weighted.difference == pytest.approx(plain.difference, abs=1e-9)
    assert (weighted.low, weighted.high) == pytest.approx((plain.low, plain.high), abs=1e-9)
    assert weighted.p_value == pytest.approx(plain.p_value, abs=0.02)


def test_a_weighted_metric_is_a_ratio_of_sums():
    values, weights = {"a": 1.0, "b": 0.0, "c": 0.5}, {"a": 3.0, "b": 1.0, "c": 2.0}
    found = compare(values, dict.fromkeys("abc", 0.0), weights, dict.fromkeys("abc", 1.0), resamples=FEW)
    assert found.difference == pytest.approx((3 * 1 + 0 + 2 * 0.5) / 6)


def test_a_question_of_no_weight_is_not_judged():
    found = compare(arm([1, 2, 3]), arm([0, 0, 0]), {"0": 1.0, "1": 2.0, "2": 0.0}, None, resamples=FEW)
    assert (found.difference, found.n, found.unmatched) == (pytest.approx(5 / 3), 2, 1)


@pytest.mark.parametrize(
    ("values", "weights"),
    [([1, float("nan")], None), ([1, float("inf")], None), ([1, 2], [1, -1]), ([1, 2], [1, float("nan")]), ([1, 2], [1])],
)
def test_values_that_are_no_numbers_are_an_error(values, weights):
    with pytest.raises(ValueError, match="must"):
        compare(arm(values), arm([0, 0]), None if weights is None else arm(weights))


def rejected(found):
    return float(np.mean([one.p_value < 0.05 for one in found]))


def test_noise_is_called_more_than_noise_about_one_time_in_twenty():
    random = np.random.default_rng(7)
    found = [compare(arm(random.normal(size=40)), arm(random.normal(size=40)), resamples=200) for _ in range(400)]
    assert 0.03 <= rejected(found) <= 0.07
    covered = np.mean([one.low <= 0 <= one.high for one in found])
    assert 0.91 <= covered <= 0.97


def test_so_it_is_with_weights():
    random = np.random.default_rng(8)

    def draw():
        values, weights = random.choice([0, 0.5, 1], size=(2, 40)), random.choice([1.0, 2.0, 4.0, 6.0], size=(2, 40))
        return compare(*map(arm, values), *map(arm, weights), resamples=200)

    assert 0.02 <= rejected([draw() for _ in range(400)]) <= 0.08


# several seeds


def seeds(values):
    return {seed: arm(row) for seed, row in enumerate(values)}


def test_values_are_averaged_over_shared_seeds_before_arms_are_compared():
    a = {1: {"x": 1.0, "y": 3.0}, 2: {"x": 3.0, "y": 5.0}, 9: {"x": 1000.0, "y": 1000.0}}
    b = {1: {"x": 0.0, "y": 1.0}, 2: {"x": 2.0, "y": 0.0}}
    found = over_seeds(a, b, resamples=FEW)
    assert found == compare({"x": 2.0, "y": 4.0}, {"x": 1.0, "y": 0.5}, resamples=FEW)


def test_one_seed_is_the_comparison_of_two_runs():
    a, b = arm(normal(1, 20)), arm(normal(2, 20))
    assert over_seeds({3: a}, {3: b}, resamples=FEW) == compare(a, b, resamples=FEW)


def test_a_question_missing_in_a_seed_of_one_arm_is_left_out_of_that_seed():
    a = {1: {"x": 1.0, "y": 3.0}, 2: {"x": 9.0, "y": 5.0, "z": 1.0}}
    b = {1: {"x": 0.0, "y": 1.0}, 2: {"y": 0.0}}
    found = over_seeds(a, b, resamples=FEW)
    assert (found.difference, found.n, found.unmatched) == (pytest.approx(((1 - 0) + (4 - 0.5)) / 2), 2, 1)


def test_weights_of_seeds_add_up():
    a, weights = {1: {"x": 1.0, "y": 0.0}, 2: {"x": 0.0, "y": 0.0}}, {1: {"x": 3.0, "y": 1.0}, 2: {"x": 1.0, "y": 1.0}}
    zero = {1: {"x": 0.0, "y": 0.0}, 2: {"x": 0.0, "y": 0.0}}
    assert over_seeds(a, zero, weights, resamples=FEW).difference == pytest.approx(3 / 6)
    assert across_seeds(a, zero, weights).difference == pytest.approx(3 / 6)


def test_arms_without_a_shared_seed_have_a_reason():
    assert over_seeds({1: {"x": 1.0}}, {2: {"x": 1.0}}).reason == "the arms share no seed"
    assert across_seeds({}, {}).reason == "the arms share fewer than 2 seeds: 0"
    found = across_seeds(seeds([[1, 2]]), seeds([[0, 0]]))
    assert (found.difference, found.reason) == (None, "the arms share fewer than 2 seeds: 1")
    found = across_seeds({1: {"x": 1.0, "y": 1.0}, 2: {"x": 1.0}}, seeds([[1], [1], [1]]) | {1: arm([1]), 2: {"x": 0.0}})
    assert found.reason == "fewer than 2 questions are judged in all seeds of both arms: 0"


def test_seeds_that_differ_widen_the_interval():
    random = np.random.default_rng(9)
    base = random.normal(size=(3, 100))
    shift = np.array([[0.0], [1.0], [2.0]])
    models, methods = over_seeds(seeds(base + shift), seeds(base)), across_seeds(seeds(base + shift), seeds(base))
    assert models.difference == methods.difference == pytest.approx(1)
    assert models.p_value < 0.001
    assert methods.p_value == pytest.approx(0.2254, abs=0.001)  # t = 1 / (1 / sqrt 3), 2 degrees of freedom


def test_questions_that_differ_widen_it_too():
    random = np.random.default_rng(10)
    effect = random.normal(0.2, 1, size=60)
    base = random.normal(size=(4, 60))
    found = across_seeds(seeds(base + effect), seeds(base))
    from scipy.stats import ttest_1samp

    assert found.p_value == pytest.approx(ttest_1samp(effect, 0).pvalue, rel=0.01)


def test_identical_arms_do_not_differ_across_seeds():
    values = normal(11, (3, 20))
    found = across_seeds(seeds(values), seeds(values))
    assert (found.difference, found.low, found.high, found.p_value) == (0, 0, 0, 1)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=4, max_size=4), min_size=2, max_size=4))
@example([[(0.0, 0.0), (0.0, 0.0)], [(0.0, 0.0), (0.0, 1e-86)]])
def test_swapping_the_arms_across_seeds_changes_signs(values):
    a = seeds([[pair[0] for pair in row] for row in values])
    b = seeds([[pair[1] for pair in row] for row in values])
    found, back = across_seeds(a, b), across_seeds(b, a)
    assert (back.difference, back.p_value) == pytest.approx((-found.difference, found.p_value))
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low))
    assert found.low <= found.difference <= found.high


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize(("by_seed", "by_question", "rest"), [(1, 0, 0.01), (0, 1, 0.01), (0.2, 1, 1), (0, 0, 1)])
def test_noise_of_seeds_and_questions_is_called_noise(count, by_seed, by_question, rest):
    random = np.random.default_rng(12)
    found = []
    for _ in range(600):
        noise = random.normal(0, by_seed, (count, 1)) + random.normal(0, by_question, 30) + random.normal(0, rest, (count, 30))
        found.append(across_seeds(seeds(noise), seeds(np.zeros((count, 30)))))
    assert rejected(found) <= 0.075  # 0.05 and almost three standard errors


# several comparisons


@pytest.mark.parametrize(
    ("p_values", "adjusted"),
    [
        ([], []),
        ([0.03], [0.03]),
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
        ([0.01, 0.02, 0.03, 0.04], [0.04, 0.06, 0.06, 0.06]),
        ([0.5, 0.9, 0.001], [1.0, 1.0, 0.003]),
        ([0.02, 0.02], [0.04, 0.04]),
    ],
)
def test_holm_by_hand(p_values, adjusted):
    assert holm(p_values) == pytest.approx(adjusted)


@given(st.lists(st.floats(0, 1), max_size=8))
def test_adjusted_p_values_keep_their_order_and_are_no_smaller(p_values):
    adjusted = holm(p_values)
    assert all(old <= new <= 1 for old, new in zip(p_values, adjusted, strict=True))
    for (old_1, new_1), (old_2, new_2) in itertools.combinations(zip(p_values, adjusted, strict=True), 2):
        assert (old_1 <= old_2 and new_1 <= new_2) or (old_1 >= old_2 and new_1 >= new_2)

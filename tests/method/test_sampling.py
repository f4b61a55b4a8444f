from __future__ import annotations

import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eva_hpc.method.sampling import sample

weights_of_prompts = st.dictionaries(st.text(), st.floats(0, 1), min_size=1, max_size=40)
fractions = st.floats(0.01, 1)


@pytest.mark.parametrize(
    ("fraction", "prompts", "count"), [(0.25, 8, 2), (0.25, 11, 2), (0.25, 3, 1), (0.01, 5, 1), (1.0, 5, 5), (0.29, 100, 29)]
)
def test_the_share_is_rounded_down_but_at_least_one_prompt(fraction, prompts, count):
    weights = {f"p{i}": 1 / prompts for i in range(prompts)}

    assert len(sample(weights, fraction, seed=1)) == count


@given(weights_of_prompts, fractions, st.integers(0, 99))
def test_no_prompt_is_drawn_twice_and_none_comes_from_elsewhere(weights, fraction, seed):
    drawn = sample(weights, fraction, seed)

    assert len(set(drawn)) == len(drawn)
    assert set(drawn) <= set(weights)


@given(weights_of_prompts, fractions, st.integers(0, 99), st.randoms(use_true_random=False))
def test_the_draw_depends_on_the_seed_and_not_on_the_order_of_prompts(weights, fraction, seed, rng: random.Random):
    names = list(weights)
    rng.shuffle(names)

    assert sample({name: weights[name] for name in names}, fraction, seed) == sample(weights, fraction, seed)


@given(weights_of_prompts, fractions, fractions, st.integers(0, 99))
def test_a_smaller_fraction_is_a_prefix_of_a_larger_one(weights, one, other, seed):
    small, large = sorted((one, other))
    few, many = sample(weights, small, seed), sample(weights, large, seed)

    assert many[: len(few)] == few


@given(weights_of_prompts, fractions, st.integers(0, 99))
def test_zero_weight_prompts_are_used_only_when_positive_ones_run_out(weights, fraction, seed):
    drawn = sample(weights, fraction, seed)
    positive = sum(weight > 0 for weight in weights.values())

    assert sum(weights[prompt_id] > 0 for prompt_id in drawn) == min(positive, len(drawn))


def test_another_seed_draws_other_prompts():
    weights = {f"p{i}": 0.01 for i in range(100)}

    assert sample(weights, 0.25, seed=1) != sample(weights, 0.25, seed=2)


def test_the_first_prompt_drawn_follows_the_weights():
    weights, draws = {"a": 0.1, "b": 0.2, "c": 0.7}, 6000

    first = Counter(sample(weights, 0.34, seed)[0] for seed in range(draws))

    for prompt_id, weight in weights.items():  # within four standard errors
        assert first[prompt_id] / draws == pytest.approx(weight, abs=4 * math.sqrt(weight * (1 - weight) / draws))


def test_the_second_prompt_drawn_follows_the_weights_that_are_left():
    weights, draws = {"a": 0.1, "b": 0.2, "c": 0.7}, 6000

    pairs = Counter(tuple(sample(weights, 0.67, seed)) for seed in range(draws))

    expected = 0.7 * 0.2 / 0.3  # c first, then b out of a and b
    assert pairs["c", "b"] / draws == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / draws))


@pytest.mark.parametrize(
    ("weights", "fraction", "message"),
    [
        ({}, 0.25, "no prompts"),
        ({"a": 1.0}, 0.0, "fraction"),
        ({"a": 1.0}, 1.5, "fraction"),
        ({"a": 0.5, "b": -0.1}, 0.5, "prompt b has weight -0.1"),
        ({"a": 0.5, "b": math.nan}, 0.5, "prompt b has weight nan"),
    ],
)
def test_impossible_input_is_refused(weights, fraction, message):
    with pytest.raises(ValueError, match=message):
        sample(weights, fraction, seed=0)


def test_an_unknown_sampler_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown sampler 'greedy': choose from weighted"):
        sample({"a": 1.0}, 0.5, seed=0, sampler="greedy")

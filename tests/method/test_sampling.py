from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eva_hpc.method.sampling import SAMPLERS, STRATA, sample

weights_of_prompts = st.dictionaries(st.text(), st.floats(0, 1), min_size=1, max_size=40)
fractions = st.floats(0.01, 1)


@pytest.mark.parametrize(
    ("fraction", "prompts", "count"), [(0.25, 8, 2), (0.25, 11, 2), (0.25, 3, 1), (0.01, 5, 1), (1.0, 5, 5), (0.29, 100, 29)]
)
def test_the_share_is_rounded_down_but_at_least_one_prompt(fraction, prompts, count):
    weights = {f"p{i}": 1 / prompts for i in range(prompts)}

    assert len(sample(weights, fraction=fraction, seed=1)) == count


@pytest.mark.parametrize(("count", "prompts", "drawn"), [(1, 8, 1), (8, 8, 8), (9, 8, 8)])
@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_a_count_is_exact_and_fewer_prompts_than_that_are_all_drawn(sampler, count, prompts, drawn):
    weights = {f"p{i}": i / 28 for i in range(prompts)}

    assert len(sample(weights, count=count, seed=1, sampler=sampler, topics=dict.fromkeys(weights, 0))) == drawn


@given(weights_of_prompts, fractions, st.integers(0, 99))
def test_zero_weight_prompts_are_used_only_when_positive_ones_run_out(weights, fraction, seed):
    drawn = sample(weights, fraction=fraction, seed=seed)
    positive = sum(weight > 0 for weight in weights.values())

    assert sum(weights[prompt_id] > 0 for prompt_id in drawn) == min(positive, len(drawn))


def test_the_weighted_draws_stay_what_they_are():
    assert sample({f"p{i}": i / 45 for i in range(10)}, count=5, seed=7) == ["p6", "p8", "p9", "p7", "p4"]


def test_another_seed_draws_other_prompts():
    weights = {f"p{i}": 0.01 for i in range(100)}

    assert sample(weights, fraction=0.25, seed=1) != sample(weights, fraction=0.25, seed=2)


def test_the_first_prompt_drawn_follows_the_weights():
    weights, draws = {"a": 0.1, "b": 0.2, "c": 0.7}, 6000

    first = Counter(sample(weights, count=1, seed=seed)[0] for seed in range(draws))

    for prompt_id, weight in weights.items():  # within four standard errors
        assert first[prompt_id] / draws == pytest.approx(weight, abs=4 * math.sqrt(weight * (1 - weight) / draws))


def test_the_second_prompt_drawn_follows_the_weights_that_are_left():
    weights, draws = {"a": 0.1, "b": 0.2, "c": 0.7}, 6000

    pairs = Counter(tuple(sample(weights, count=2, seed=seed)) for seed in range(draws))

    expected = 0.7 * 0.2 / 0.3  # c first, then b out of a and b
    assert pairs["c", "b"] / draws == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / draws))


def test_greedy_takes_the_largest_weights_first():
    weights = {"a": 0.1, "b": 0.4, "c": 0.2, "d": 0.3}

    assert sample(weights, fraction=1, seed=5, sampler="greedy") == ["b", "d", "c", "a"]


def test_greedy_breaks_ties_by_the_seed():
    weights = {"best": 0.5, **{f"p{i}": 0.0 for i in range(20)}}

    first, second = (sample(weights, count=10, seed=seed, sampler="greedy") for seed in (1, 2))

    assert first[0] == second[0] == "best"
    assert first[1:] != second[1:] != sorted(second[1:])


@given(weights_of_prompts, st.integers(1, 40), st.integers(0, 99))
def test_a_stratified_sample_has_as_many_of_every_stratum(weights, count, seed):
    ranked = sample(weights, fraction=1, seed=seed, sampler="greedy")
    stratum = {prompt_id: rank * STRATA // len(ranked) for rank, prompt_id in enumerate(ranked)}

    drawn = sample(weights, count=count, seed=seed, sampler="stratified")

    size, found = Counter(stratum.values()), Counter(stratum[prompt_id] for prompt_id in drawn)
    assert max(size.values()) - min(size.values()) <= 1
    open_ones = [found[number] for number in size if found[number] < size[number]]
    assert max(found.values()) - min(open_ones, default=max(found.values())) <= 1


def test_a_stratum_is_drawn_from_uniformly():
    weights, draws = {f"p{i}": i / 28 for i in range(8)}, 2000  # strata of two

    found = Counter(name for seed in range(draws) for name in sample(weights, count=4, seed=seed, sampler="stratified"))

    assert all(found[name] / draws == pytest.approx(0.5, abs=4 * math.sqrt(0.25 / draws)) for name in weights)


def test_a_topic_that_has_too_few_prompts_gives_its_places_to_the_others():
    weights = {f"p{i}": 1 / 20 for i in range(20)}
    topics = {"p0": 7, "p1": 3, "p2": 3, **{f"p{i}": 5 + i % 2 for i in range(3, 20)}}  # 1, 2, 9 and 8 prompts

    drawn = sample(weights, count=12, seed=4, sampler="topic", topics=topics)

    found = Counter(topics[prompt_id] for prompt_id in drawn)
    assert (found[7], found[3]) == (1, 2)
    assert {found[5], found[6]} == {4, 5}


def test_places_that_do_not_divide_fall_to_random_topics():
    weights = {f"p{i}": 1 / 6 for i in range(6)}
    topics = {f"p{i}": i % 3 for i in range(6)}

    found = Counter(
        topics[name] for seed in range(1500) for name in sample(weights, count=4, seed=seed, sampler="topic", topics=topics)
    )

    assert sum(found.values()) == 6000
    assert all(found[number] == pytest.approx(2000, abs=4 * math.sqrt(1500 * 2 / 9)) for number in range(3))


def test_within_a_topic_the_weights_decide():
    weights = {"a": 0.1, "b": 0.3, "c": 0.6}
    topics, draws = {"a": 0, "b": 0, "c": 1}, 4000

    found = Counter(
        name for seed in range(draws) for name in sample(weights, count=2, seed=seed, sampler="topic", topics=topics)
    )

    assert found["c"] == draws
    assert found["b"] / draws == pytest.approx(0.75, abs=4 * math.sqrt(0.75 * 0.25 / draws))


@pytest.mark.parametrize(
    ("weights", "size", "message"),
    [
        ({}, {"fraction": 0.25}, "no prompts"),
        ({"a": 1.0}, {"fraction": 0.0}, "fraction"),
        ({"a": 1.0}, {"fraction": 1.5}, "fraction"),
        ({"a": 1.0}, {"count": 0}, "number of prompts to evolve is 0"),
        ({"a": 1.0}, {}, "a fraction or a count, and not both: found fraction None and count None"),
        ({"a": 1.0}, {"fraction": 0.5, "count": 1}, "found fraction 0.5 and count 1"),
        ({"a": 0.5, "b": -0.1}, {"fraction": 0.5}, "prompt b has weight -0.1"),
        ({"a": 0.5, "b": math.nan}, {"fraction": 0.5}, "prompt b has weight nan"),
    ],
)
def test_impossible_input_is_refused(weights, size, message):
    with pytest.raises(ValueError, match=message):
        sample(weights, **size, seed=0)


def test_an_unknown_sampler_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown sampler 'best': choose from weighted, greedy, stratified, topic"):
        sample({"a": 1.0}, fraction=0.5, seed=0, sampler="best")


@pytest.mark.parametrize("topics", [None, {"a": 0}])
def test_the_topic_sampler_needs_a_topic_of_every_prompt(topics):
    with pytest.raises(ValueError, match=r"prompt [ab] has no topic, which the sampler 'topic' needs"):
        sample({"a": 0.5, "b": 0.5}, count=1, seed=0, sampler="topic", topics=topics)

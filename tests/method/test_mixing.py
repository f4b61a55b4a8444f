from __future__ import annotations

import math
import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eva_hpc.method.mixing import mix, share, shuffled

ids = st.lists(st.text(min_size=1), unique=True, max_size=60)
ratios = st.integers(0, 100).map(lambda percent: percent / 100)


@pytest.mark.parametrize(
    ("count", "ratio", "expected"),
    [
        (5, 0.8, 4),
        (10, 0.25, 3),
        (5, 0.5, 3),
        (50, 0.29, 15),
        (25, 0.58, 15),
        (45, 0.7, 32),
        (7, 0.0, 0),
        (7, 1.0, 7),
        (0, 0.5, 0),
    ],
)
def test_a_share_is_rounded_half_up_whatever_the_floats_say(count, ratio, expected):
    assert share(count, ratio) == expected


@given(st.integers(0, 10**6), st.integers(0, 100))
def test_a_share_of_percents_is_exact(count, percent):
    assert share(count, percent / 100) == math.floor(Fraction(count * percent, 100) + Fraction(1, 2))


@pytest.mark.parametrize("ratio", [-0.1, 1.01, math.nan])
def test_a_ratio_outside_zero_to_one_is_refused(ratio):
    with pytest.raises(ValueError, match="between 0 and 1"):
        share(10, ratio)


@given(ids, st.integers(0, 99), st.randoms(use_true_random=False))
def test_shuffling_loses_nothing_and_depends_on_the_seed_only(prompt_ids, seed, rng: random.Random):
    reordered = list(prompt_ids)
    rng.shuffle(reordered)

    assert sorted(shuffled(prompt_ids, seed)) == sorted(prompt_ids)
    assert shuffled(reordered, seed) == shuffled(prompt_ids, seed)


def test_another_seed_shuffles_otherwise():
    prompt_ids = [f"p{i}" for i in range(50)]

    assert shuffled(prompt_ids, 1) != shuffled(prompt_ids, 2)


def test_a_mixture_takes_both_prefixes_and_counts_them():
    base, evolved = [f"b{i}" for i in range(5)], [f"e{i}" for i in range(5)]

    mixture = mix(base, evolved, 0.8, seed=3)

    assert mixture.evolved == tuple(shuffled(evolved, 3)[:4])
    assert mixture.base == tuple(shuffled(base, 3)[:1])
    assert mixture.prompt_ids == mixture.evolved + mixture.base
    assert (mixture.n_evolved, mixture.n_base, mixture.shortage) == (5, 5, 0)


@given(ids, ids, st.integers(0, 99))
def test_ratio_zero_is_all_base_prompts_and_ratio_one_all_evolved_ones(base, evolved, seed):
    none, all_ = mix(base, evolved, 0.0, seed), mix(base, evolved, 1.0, seed)

    assert (none.evolved, sorted(none.base)) == ((), sorted(base))
    assert (sorted(all_.evolved), all_.base) == (sorted(evolved), ())


@given(ids, ids, ratios, ratios, st.integers(0, 99))
def test_a_smaller_ratio_is_nested_in_a_larger_one(base, evolved, one, other, seed):
    small, large = (mix(base, evolved, ratio, seed) for ratio in sorted((one, other)))

    assert large.evolved[: len(small.evolved)] == small.evolved
    assert small.base[: len(large.base)] == large.base


@given(st.integers(0, 500), ratios)
def test_a_round_is_as_large_as_the_base_set_when_as_many_prompts_were_evolved(count, ratio):
    mixture = mix([f"b{i}" for i in range(count)], [f"e{i}" for i in range(count)], ratio, seed=0)

    assert len(mixture.prompt_ids) == count
    assert mixture.shortage == 0


@given(ids, ids, ratios)
def test_what_a_round_lacks_is_counted(base, evolved, ratio):
    mixture = mix(base, evolved, ratio, seed=0)

    assert len(mixture.prompt_ids) + mixture.shortage >= len(base)
    assert mixture.shortage == 0 or len(mixture.prompt_ids) + mixture.shortage == len(base)


def test_few_evolved_prompts_are_a_shortage():
    mixture = mix([f"b{i}" for i in range(10)], ["e0", "e1"], 0.8, seed=0)

    assert (len(mixture.evolved), len(mixture.base), mixture.shortage) == (2, 2, 6)

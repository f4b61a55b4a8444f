from __future__ import annotations

import math
import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eva_hpc.method.mixing import mix, share, shuffled

ids = st.lists(st.text(min_size=1), unique=True, max_size=60)


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
    base, evolved = [f"b{i}" for i in range(5)], [f"e{i}" for i in range(7)]

    mixture = mix(base, evolved, 0.8, seed=3)

    assert mixture.evolved == tuple(shuffled(evolved, 3)[:4])
    assert mixture.base == tuple(shuffled(base, 3)[:1])
    assert mixture.prompt_ids == mixture.evolved + mixture.base
    assert (mixture.n_evolved, mixture.n_base, mixture.wanted_evolved, mixture.shortage) == (7, 5, 4, 0)


@pytest.mark.parametrize(
    ("count", "evolved"),
    [
        (512, {1.0: 512, 0.8: 410, 0.5: 256, 0.2: 102, 0.0: 0}),
        (10, {1.0: 10, 0.8: 8, 0.5: 5, 0.2: 2, 0.0: 0}),
        (5, {1.0: 5, 0.8: 4, 0.5: 3, 0.2: 1, 0.0: 0}),
        (3, {1.0: 3, 0.8: 2, 0.5: 2, 0.2: 1, 0.0: 0}),
        (1, {1.0: 1, 0.8: 1, 0.5: 1, 0.2: 0, 0.0: 0}),
    ],
)
@pytest.mark.parametrize("spare", [0, 1, 600])
def test_the_counts_of_a_round_are_exact_however_many_more_prompts_were_evolved(count, evolved, spare):
    base, children = [f"b{i}" for i in range(count)], [f"e{i}" for i in range(count + spare)]

    for ratio, expected in evolved.items():
        mixture = mix(base, children, ratio, seed=1)

        assert (len(mixture.evolved), len(mixture.base), mixture.shortage) == (expected, count - expected, 0)


@pytest.mark.parametrize(
    ("ratio", "evolved", "base", "shortage"), [(1.0, 3, 0, 7), (0.8, 3, 2, 5), (0.5, 3, 5, 2), (0.2, 2, 8, 0), (0.0, 0, 10, 0)]
)
def test_too_few_evolved_prompts_are_all_taken_and_what_lacks_is_counted(ratio, evolved, base, shortage):
    mixture = mix([f"b{i}" for i in range(10)], ["e0", "e1", "e2"], ratio, seed=0)

    assert (len(mixture.evolved), len(mixture.base), mixture.shortage) == (evolved, base, shortage)
    assert mixture.wanted_evolved == evolved + shortage


def test_no_evolved_prompts_and_no_prompts_at_all_are_mixtures_too():
    assert (mix(["b0", "b1"], [], 1.0, seed=0).prompt_ids, mix(["b0", "b1"], [], 1.0, seed=0).shortage) == ((), 2)
    assert (mix([], ["e0"], 0.5, seed=0).prompt_ids, mix([], [], 0.5, seed=0).shortage) == ((), 0)

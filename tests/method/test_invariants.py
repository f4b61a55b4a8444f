"""What holds for any round: nested k, nested ratios, counts that add up, no order dependence, no prompt lost."""

from __future__ import annotations

import random
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from eva_hpc.method.informativeness import METRICS, informativeness, weights
from eva_hpc.method.mixing import mix, share
from eva_hpc.method.pairing import CHOICES, of_preferences, pairs, win_probabilities
from eva_hpc.method.recheck import still_informative
from eva_hpc.method.sampling import SAMPLERS, sample
from eva_hpc.store.records import Pair, Responses

K_MAX = 6
few = settings(max_examples=40)
seeds = st.integers(0, 99)
ratios = st.one_of(st.sampled_from([1.0, 0.8, 0.5, 0.2, 0.0]), st.integers(0, 100).map(lambda percent: percent / 100))
# Few different values, so that there are ties.
reward = st.one_of(st.none(), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
rewards_of_prompts = st.dictionaries(
    st.text("abcdef", max_size=3), st.lists(reward, min_size=K_MAX, max_size=K_MAX), max_size=12
)
preferences = st.lists(st.lists(reward, min_size=K_MAX, max_size=K_MAX), min_size=K_MAX, max_size=K_MAX)
pairings = st.fixed_dictionaries(
    {"choice": st.sampled_from(sorted(CHOICES)), "min_margin": st.sampled_from([0.0, 0.3, 0.5]), "seed": seeds}
)
shuffles = st.randoms(use_true_random=False)


def responses(prompt_id: str, count: int = K_MAX) -> Responses:
    return {
        "prompt_id": prompt_id,
        "prompt": f"prompt {prompt_id}",
        "prompt_tokens": [1],
        "responses": [{"text": f"r{j}", "tokens": [j], "finish": "stop", "logprob": -1.0} for j in range(count)],
    }


def reordered(names: Sequence[str], rng: random.Random) -> list[str]:
    return rng.sample(list(names), len(names))


@few
@given(rewards_of_prompts, st.integers(2, K_MAX), pairings)
def test_the_first_k_of_many_responses_are_the_k_response_experiment(rewards, k, how):
    alone = {name: values[:k] for name, values in rewards.items()}
    wins = {name: win_probabilities(values) for name, values in alone.items()}

    sliced = pairs(map(responses, rewards), rewards, k, wins=wins, **how)

    assert sliced == pairs([responses(name, k) for name in rewards], alone, wins=wins, **how)


@few
@given(preferences, st.integers(2, K_MAX), pairings)
def test_the_first_k_of_many_preferences_are_the_k_response_experiment(matrix, k, how):
    sliced, alone = of_preferences(matrix, k), of_preferences([row[:k] for row in matrix[:k]], k)

    assert len(sliced) == k
    assert pairs([responses("p", k)], {"p": sliced}, **how) == pairs([responses("p", k)], {"p": alone}, **how)
    assert sliced == alone


@few
@given(rewards_of_prompts, st.sampled_from(sorted(METRICS)))
def test_every_prompt_with_a_reward_is_measured_and_no_other(rewards, metric):
    implicit = {name: [float(j) for j in range(K_MAX)] for name in rewards}

    values = informativeness(metric, rewards, implicit)

    assert list(values) == [name for name, of_prompt in rewards.items() if set(of_prompt) != {None}]


@few
@given(st.integers(0, 60), st.integers(0, 80), ratios, ratios, seeds)
def test_a_smaller_ratio_is_nested_in_a_larger_one(n_base, n_evolved, one, other, seed):
    base, evolved = [f"b{i}" for i in range(n_base)], [f"e{i}" for i in range(n_evolved)]

    small, large = (mix(base, evolved, ratio, seed) for ratio in sorted((one, other)))

    assert large.evolved[: len(small.evolved)] == small.evolved
    assert small.base[: len(large.base)] == large.base


@few
@given(st.integers(0, 60), st.integers(0, 80), ratios, seeds)
def test_every_prompt_is_in_the_round_or_beyond_the_ratio_and_what_lacks_is_counted(n_base, n_evolved, ratio, seed):
    base, evolved = {f"b{i}" for i in range(n_base)}, {f"e{i}" for i in range(n_evolved)}

    mixture = mix(sorted(base), sorted(evolved), ratio, seed)

    assert set(mixture.evolved) <= evolved
    assert set(mixture.base) <= base
    assert len(set(mixture.prompt_ids)) == len(mixture.prompt_ids) == n_base - mixture.shortage
    assert len(mixture.base) == n_base - share(n_base, ratio)
    assert mixture.shortage == max(0, share(n_base, ratio) - n_evolved)
    assert (mixture.n_base, mixture.n_evolved) == (n_base, n_evolved)


@few
@given(rewards_of_prompts, pairings)
def test_every_prompt_of_a_round_gives_a_pair_or_is_set_aside_with_a_reason(rewards, how):
    made, set_aside = pairs(map(responses, rewards), rewards, **how)

    assert sorted([pair["prompt_id"] for pair in made] + [record["prompt_id"] for record in set_aside]) == sorted(rewards)
    assert {record["reason"] for record in set_aside} <= {
        "tie",
        "fewer than two rewards",
        f"margin below {how['min_margin']:g}",
    }
    for pair in made:
        known = [value for value in rewards[pair["prompt_id"]] if value is not None]
        assert pair["chosen"]["reward"] == max(known) > pair["rejected"]["reward"]
        assert pair["chosen"]["reward"] - pair["rejected"]["reward"] >= how["min_margin"]


@few
@given(rewards_of_prompts, pairings, ratios, seeds, shuffles)
def test_nothing_depends_on_the_order_of_prompts(rewards, how, ratio, seed, rng):
    names = reordered(list(rewards), rng)
    other = {name: rewards[name] for name in names}

    def by_id(outcome: tuple[list[Pair], list[dict[str, str]]]) -> list[dict[str, object]]:
        return sorted([*map(dict, outcome[0]), *map(dict, outcome[1])], key=lambda record: str(record["prompt_id"]))

    assert by_id(pairs(map(responses, names), other, **how)) == by_id(pairs(map(responses, rewards), rewards, **how))
    assert mix(names, names, ratio, seed) == mix(list(rewards), list(rewards), ratio, seed)
    for metric in METRICS:
        implicit = {name: [float(j) for j in range(K_MAX)] for name in rewards}
        assert weights(informativeness(metric, other, implicit)) == weights(informativeness(metric, rewards, implicit))


@few
@given(
    st.dictionaries(st.text("abcdef", max_size=3), st.sampled_from([0.0, 0.1, 0.5]), min_size=1, max_size=20),
    st.sampled_from(sorted(SAMPLERS)),
    st.integers(1, 25),
    st.integers(1, 25),
    seeds,
    shuffles,
)
def test_a_sample_loses_nobody_repeats_nobody_and_is_nested(weights_of, sampler, one, other, seed, rng):
    names = reordered(list(weights_of), rng)
    topics = {name: len(name) for name in names}
    small, large = sorted((one, other))

    def drawn(count: int) -> list[str]:
        return sample(weights_of, count=count, seed=seed, sampler=sampler, topics=topics)

    assert sorted(drawn(len(names))) == sorted(names)
    assert drawn(large)[:small] == drawn(small)
    assert len(drawn(large)) == min(large, len(names))
    shuffled = {name: weights_of[name] for name in names}
    assert sample(shuffled, count=large, seed=seed, sampler=sampler, topics=topics) == drawn(large)
    half = sample(weights_of, fraction=0.5, seed=seed, sampler=sampler, topics=topics)
    assert half == drawn(max(1, len(names) // 2))


@few
@given(
    st.dictionaries(st.text("abc", max_size=2), st.integers(-5, 5).map(float), max_size=8),
    st.dictionaries(st.text("xyz", max_size=2), st.integers(-5, 5).map(float), min_size=1, max_size=8),
    st.integers(0, 20).map(lambda twentieth: twentieth / 20),
    st.integers(0, 20).map(lambda twentieth: twentieth / 20),
)
def test_a_recheck_keeps_or_drops_every_child_and_a_stricter_one_keeps_no_more(children, base, one, other):
    lax, strict = (still_informative(children, base, quantile) for quantile in sorted((one, other)))

    for kept, dropped in (lax, strict):
        assert sorted(kept + dropped) == sorted(children)
    assert set(strict[0]) <= set(lax[0])

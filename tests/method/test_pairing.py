from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eva_hpc.method.pairing import CHOICES, of_preferences, pairs, win_probabilities
from eva_hpc.store.records import Pair, Responses


def responses(count: int, prompt_id: str = "p") -> Responses:
    return {
        "prompt_id": prompt_id,
        "prompt": "Reverse: kapol",
        "prompt_tokens": [1, 7],
        "responses": [{"text": f"r{j}", "tokens": [j, 2], "finish": "stop", "logprob": -1.0} for j in range(count)],
    }


def pair_of(rewards: list[float | None], **settings: object) -> Pair | str:
    """The pair of one prompt, or why there is none."""
    made, set_aside = pairs([responses(len(rewards))], {"p": rewards}, **settings)  # type: ignore[arg-type]
    assert len(made) + len(set_aside) == 1
    return made[0] if made else set_aside[0]["reason"]


def texts(pair: Pair | str) -> tuple[str, str]:
    assert not isinstance(pair, str)
    return pair["chosen"]["text"], pair["rejected"]["text"]


def test_a_pair_is_the_best_and_the_worst_response_with_text_tokens_and_reward():
    assert pair_of([0.2, 1.0, 0.0]) == {
        "prompt_id": "p",
        "prompt": "Reverse: kapol",
        "prompt_tokens": [1, 7],
        "chosen": {"text": "r1", "tokens": [1, 2], "reward": 1.0, "logprob": -1.0},
        "rejected": {"text": "r2", "tokens": [2, 2], "reward": 0.0, "logprob": -1.0},
    }


def test_a_pair_says_which_policy_sampled_it_and_with_which_log_probs_if_that_is_known():
    record = responses(2)
    record["policy"] = "61de7a"
    record["responses"][0]["logprob"] = None

    ((pair,), _) = pairs([record], {"p": [0.0, 1.0]})

    assert pair["policy"] == "61de7a"
    assert pair["chosen"]["logprob"] == -1.0
    assert "logprob" not in pair["rejected"]


def test_the_first_of_several_best_and_worst_responses_wins():
    assert texts(pair_of([0.5, 1.0, 0.0, 1.0, 0.0])) == ("r1", "r2")


@pytest.mark.parametrize("choice", sorted(CHOICES))
def test_equal_rewards_give_no_pair(choice):
    assert pair_of([0.4, 0.4, 0.4], choice=choice) == pair_of([0.4, None, 0.4], choice=choice) == "tie"


def test_only_the_first_k_responses_count():
    assert texts(pair_of([0.2, 0.4, 1.0, 0.0], k=2)) == ("r1", "r0")


def test_a_response_without_reward_is_in_no_pair():
    assert texts(pair_of([None, 0.2, 0.4, None])) == ("r2", "r1")


@pytest.mark.parametrize("rewards", [[None, None], [None, 0.3, None], [0.3, None, 1.0, 0.0]])
def test_fewer_than_two_rewards_give_no_pair(rewards):
    assert pair_of(rewards, k=2) == "fewer than two rewards"


def test_a_random_rejected_response_is_any_that_is_worse():
    rewards, draws = [0.2, 1.0, None, 0.0, 1.0, 0.5], 3000

    found = Counter(texts(pair_of(rewards, choice="best_random", seed=seed)) for seed in range(draws))

    assert set(found) == {("r1", "r0"), ("r1", "r3"), ("r1", "r5")}
    assert all(count / draws == pytest.approx(1 / 3, abs=4 * math.sqrt(2 / 9 / draws)) for count in found.values())


def test_a_random_choice_differs_between_prompts_and_not_between_orders_of_them():
    records = [responses(6, f"p{i}") for i in range(40)]
    rewards = {record["prompt_id"]: [1.0, 0.0, 0.1, 0.2, 0.3, 0.4] for record in records}

    forwards, backwards = (pairs(given, rewards, choice="best_random", seed=2)[0] for given in (records, records[::-1]))

    assert forwards == backwards[::-1]
    assert len({pair["rejected"]["text"] for pair in forwards}) == 5


@pytest.mark.parametrize(("min_margin", "outcome"), [(0.0, None), (0.25, None), (0.3, "margin below 0.3")])
def test_a_smaller_margin_than_asked_for_gives_no_pair(min_margin, outcome):
    pair = pair_of([0.5, 0.25, 0.375], min_margin=min_margin)

    assert pair == outcome or texts(pair) == ("r0", "r1")


def test_win_probabilities_are_written_to_both_sides():
    pair = pair_of([0.2, 1.0, 0.0], wins={"p": [0.5, 0.75, 0.25]})

    assert not isinstance(pair, str)
    assert (pair["chosen"]["win_probability"], pair["rejected"]["win_probability"]) == (0.75, 0.25)


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=10))
def test_no_response_is_better_than_the_chosen_or_worse_than_the_rejected_one(rewards):
    pair = pair_of(rewards)

    if isinstance(pair, str):
        assert (pair, len(set(rewards))) == ("tie", 1)
    else:
        assert pair["rejected"]["reward"] == min(rewards) < max(rewards) == pair["chosen"]["reward"]


@pytest.mark.parametrize(
    ("count", "rewards", "k", "message"),
    [
        (3, [0.0, 1.0], None, "3 responses but 2 rewards"),
        (3, [0.0, 1.0, 2.0], 4, "3 responses: a pair cannot be made of the first 4"),
        (3, [0.0, 1.0, 2.0], 1, "cannot be made of the first 1"),
        (1, [0.0], None, "cannot be made of the first 1"),
        (2, [0.0, math.nan], None, "the reward of response 1 is nan"),
        (3, [None, -math.inf, 0.0], None, "the reward of response 1 is -inf"),
    ],
)
def test_impossible_rewards_are_refused_with_the_prompts_name(count, rewards, k, message):
    with pytest.raises(ValueError, match=f"prompt p.*{message}"):
        pairs([responses(count)], {"p": rewards}, k)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"choice": "worst"}, "unknown choice of pairs 'worst': choose from best_worst, best_random"),
        ({"min_margin": -0.1}, "margin of a pair is -0.1"),
        ({"min_margin": math.nan}, "margin of a pair is nan"),
        ({"wins": {}}, "prompt p has 0 win probabilities for 3 responses"),
        ({"wins": {"p": [0.5, 0.5, 0.5]}, "k": 2}, "prompt p has 3 win probabilities for 2 responses"),
        ({"wins": {"p": [0.5, None, 0.5]}}, "win probability of response 1 is None"),
        ({"wins": {"p": [1.5, 0.5, 0.5]}}, "win probability of response 0 is 1.5"),
        ({"wins": {"p": [math.nan, 0.5, 0.5]}}, "win probability of response 0 is nan"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        pair_of([0.0, 1.0, 0.5], **settings)


def test_many_prompts_give_pairs_and_the_others_are_set_aside_with_the_reason():
    records = [responses(2, name) for name in "abcde"]
    rewards = {"c": [1.0, 0.0], "b": [0.5, 0.5], "a": [0.0, 1.0], "d": [0.5, None], "e": [0.5, 0.4]}

    made, set_aside = pairs(records, rewards, min_margin=0.5)

    assert [pair["prompt_id"] for pair in made] == ["a", "c"]
    assert {record["prompt_id"]: record["reason"] for record in set_aside} == {
        "b": "tie",
        "d": "fewer than two rewards",
        "e": "margin below 0.5",
    }


def test_a_prompt_without_rewards_is_refused_with_its_name():
    with pytest.raises(ValueError, match="prompt b has responses but no rewards"):
        pairs([responses(2, "b")], {"a": [0.0, 1.0]})


def test_a_win_probability_is_the_mean_over_the_responses_of_the_bradley_terry_model():
    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    assert win_probabilities([1.0, None, 0.0, -2.0], scale=0.5) == pytest.approx(
        [
            (0.5 + sigmoid(0.5) + sigmoid(1.5)) / 3,
            None,
            (sigmoid(-0.5) + 0.5 + sigmoid(1.0)) / 3,
            (sigmoid(-1.5) + sigmoid(-1.0) + 0.5) / 3,
        ]
    )


def test_win_probabilities_of_far_apart_rewards_do_not_overflow():
    assert win_probabilities([1e308, -1e308, 0.0], scale=10.0) == pytest.approx([2.5 / 3, 0.5 / 3, 0.5])


@given(st.lists(st.one_of(st.none(), st.integers(-50, 50).map(float)), max_size=8), st.sampled_from([0.01, 1.0, 10.0]))
def test_win_probabilities_average_one_half_and_follow_the_rewards(rewards, scale):
    won = win_probabilities(rewards, scale)

    known = [(reward, value) for reward, value in zip(rewards, won, strict=True) if reward is not None and value is not None]
    assert [value is None for value in won] == [reward is None for reward in rewards]
    assert not known or math.fsum(value for _, value in known) / len(known) == pytest.approx(0.5)
    assert all(one[1] <= other[1] for one in known for other in known if one[0] <= other[0])


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
def test_an_impossible_scale_is_refused(scale):
    with pytest.raises(ValueError, match="scale of rewards"):
        win_probabilities([0.0, 1.0], scale)


def test_win_probabilities_need_finite_rewards():
    with pytest.raises(ValueError, match="the reward of response 1 is nan"):
        win_probabilities([0.0, math.nan])


def test_preferences_give_the_mean_of_the_first_columns_as_reward():
    matrix = [[0.5, 0.75, 0.0], [0.25, 0.5, 0.0], [1.0, 1.0, 0.5]]

    assert of_preferences(matrix, 3) == pytest.approx([1.25 / 3, 0.25, 2.5 / 3])
    assert of_preferences(matrix, 2) == [0.625, 0.375]
    assert of_preferences(matrix, 1) == [0.5]


def test_comparisons_that_failed_are_not_counted():
    matrix = [[0.5, None, 1.0], [None, 0.5, None], [0.0, None, 0.5]]

    assert of_preferences(matrix, 3) == [0.75, None, 0.25]
    assert of_preferences(matrix, 2) == [None, None]  # neither was compared with the other
    assert of_preferences([[None, None], [None, None]], 2) == [None, None]


@pytest.mark.parametrize(
    ("matrix", "k", "message"),
    [
        ([], 1, "between 0 responses cannot be used for the first 1"),
        ([[0.5]], 0, "cannot be used for the first 0"),
        ([[0.5]], 2, "cannot be used for the first 2"),
        ([[0.5, 0.5], [0.5]], 2, "cannot be used for the first 2"),
        ([[0.5, 1.5], [0.5, 0.5]], 2, "preference for response 0 over response 1 is 1.5"),
        ([[0.5, 0.5], [math.nan, 0.5]], 2, "preference for response 1 over response 0 is nan"),
    ],
)
def test_impossible_preferences_are_refused(matrix, k, message):
    with pytest.raises(ValueError, match=message):
        of_preferences(matrix, k)

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eva_hpc.method.pairing import best_worst, pairs
from eva_hpc.store.records import Responses


def responses(count: int, prompt_id: str = "p") -> Responses:
    return {
        "prompt_id": prompt_id,
        "prompt": "Reverse: kapol",
        "prompt_tokens": [1, 7],
        "responses": [{"text": f"r{j}", "tokens": [j, 2], "finish": "stop", "logprob": -1.0} for j in range(count)],
    }


def test_a_pair_is_the_best_and_the_worst_response_with_text_tokens_and_reward():
    assert best_worst(responses(3), [0.2, 1.0, 0.0]) == {
        "prompt_id": "p",
        "prompt": "Reverse: kapol",
        "prompt_tokens": [1, 7],
        "chosen": {"text": "r1", "tokens": [1, 2], "reward": 1.0},
        "rejected": {"text": "r2", "tokens": [2, 2], "reward": 0.0},
    }


def test_the_first_of_several_best_and_worst_responses_wins():
    pair = best_worst(responses(5), [0.5, 1.0, 0.0, 1.0, 0.0])

    assert pair is not None
    assert (pair["chosen"]["text"], pair["rejected"]["text"]) == ("r1", "r2")


def test_equal_rewards_give_no_pair():
    assert best_worst(responses(3), [0.4, 0.4, 0.4]) is None


def test_only_the_first_k_responses_count():
    pair = best_worst(responses(4), [0.2, 0.4, 1.0, 0.0], k=2)

    assert pair is not None
    assert (pair["chosen"]["text"], pair["rejected"]["text"]) == ("r1", "r0")


@given(st.lists(st.integers(0, 3).map(float), min_size=2, max_size=10), st.data())
def test_the_first_k_of_many_responses_are_the_k_response_experiment(rewards, data):
    k = data.draw(st.integers(2, len(rewards)))

    assert best_worst(responses(len(rewards)), rewards, k) == best_worst(responses(k), rewards[:k])


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=10))
def test_no_response_is_better_than_the_chosen_or_worse_than_the_rejected_one(rewards):
    pair = best_worst(responses(len(rewards)), rewards)

    if pair is None:
        assert len(set(rewards)) == 1
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
    ],
)
def test_impossible_input_is_refused_with_the_prompts_name(count, rewards, k, message):
    with pytest.raises(ValueError, match=f"prompt p.*{message}"):
        best_worst(responses(count), rewards, k)


def test_many_prompts_give_pairs_and_the_ties_are_set_aside():
    records = [responses(2, "a"), responses(2, "b"), responses(2, "c")]

    made, set_aside = pairs(records, {"c": [1.0, 0.0], "b": [0.5, 0.5], "a": [0.0, 1.0]})

    assert [pair["prompt_id"] for pair in made] == ["a", "c"]
    assert set_aside == [{"prompt_id": "b", "reason": "tie"}]


def test_a_prompt_without_rewards_is_refused_with_its_name():
    with pytest.raises(ValueError, match="prompt b has responses but no rewards"):
        pairs([responses(2, "b")], {"a": [0.0, 1.0]})

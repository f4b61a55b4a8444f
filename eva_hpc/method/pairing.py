"""Preference pairs: of each prompt the best response by reward, and the worst or any worse one.

rewards [0.2, 1.0, None, 0.0, 1.0]   ->   chosen: response 1; rejected: response 3, or by `best_random` response 0 or 3

A pair may carry how probably its responses win against those of the prompt, as SPPO needs it (`win_probabilities`). A
pairwise reward model gives such probabilities and no rewards: `of_preferences` makes rewards of them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypedDict

from eva_hpc.store.records import Pair, Responses, Side
from eva_hpc.store.seeds import derive_seed

# The response to reject, out of those with a lower reward than the best (index -> reward), by the prompt's seed.
Choice = Callable[[Mapping[int, float], int], int]


class SetAsidePair(TypedDict):
    """A prompt that gave no pair, and why."""

    prompt_id: str
    reason: str


def worst(lower: Mapping[int, float], seed: int) -> int:
    """The one with the lowest reward; the first index wins a tie (arXiv 2411.00062)."""
    return min(lower, key=lambda j: (lower[j], j))


def any_worse(lower: Mapping[int, float], seed: int) -> int:
    """Any of them, each with the same probability."""
    return min(lower, key=lambda j: (derive_seed(seed, "rejected", j), j))


CHOICES: dict[str, Choice] = {"best_worst": worst, "best_random": any_worse}


def pairs(
    responses: Iterable[Responses],
    rewards: Mapping[str, Sequence[float | None]],
    k: int | None = None,
    *,
    choice: str = "best_worst",
    min_margin: float = 0.0,
    seed: int = 0,
    wins: Mapping[str, Sequence[float | None]] | None = None,
) -> tuple[list[Pair], list[SetAsidePair]]:
    """The pairs of many prompts, in their order, and the prompts that gave none.

    The chosen response is the one with the highest reward, the first of several. Reasons to set a prompt aside: "fewer than
    two rewards" that are not None; "tie": all rewards are equal, which says nothing about what is preferred; "margin below X".

    Args:
        responses: of each prompt.
        rewards: prompt id -> reward of each response; one whose reward is None is in no pair.
        k: use the first k responses, by default all. The rest changes nothing.
        choice: a name in `CHOICES`: which response is rejected.
        min_margin: the smallest difference between the rewards of a pair.
        seed: of `best_random`, which draws for each prompt by its id.
        wins: prompt id -> win probability of each of the first k responses, to be written into the pairs.

    Raises:
        ValueError: the choice is unknown, the margin is negative, or of a prompt, which the message names: rewards or win
            probabilities are missing or differ in number from the responses, there are fewer than k responses, k is below 2, a
            reward is not finite, or a win probability is not in [0, 1].
    """
    if choice not in CHOICES:
        raise ValueError(f"unknown choice of pairs {choice!r}: choose from {', '.join(CHOICES)}")
    if not min_margin >= 0:
        raise ValueError(f"the smallest margin of a pair is {min_margin}: it must not be negative")
    made: list[Pair] = []
    set_aside: list[SetAsidePair] = []
    for record in responses:
        prompt_id = record["prompt_id"]
        if prompt_id not in rewards:
            raise ValueError(f"prompt {prompt_id} has responses but no rewards")
        used = _rewards_in_use(record, rewards[prompt_id], k)
        outcome = _choose(used, CHOICES[choice], min_margin, derive_seed(seed, prompt_id))
        if isinstance(outcome, str):
            set_aside.append({"prompt_id": prompt_id, "reason": outcome})
            continue
        chosen, rejected = (_side(record, j, used[j]) for j in outcome)
        if wins is not None:
            of_prompt = _wins_in_use(record, wins.get(prompt_id, ()), k)
            chosen["win_probability"], rejected["win_probability"] = (_probability(prompt_id, j, of_prompt[j]) for j in outcome)
        pair = Pair(
            prompt_id=prompt_id,
            prompt=record["prompt"],
            prompt_tokens=record["prompt_tokens"],
            chosen=chosen,
            rejected=rejected,
        )
        if "policy" in record:
            pair["policy"] = record["policy"]
        made.append(pair)
    return made, set_aside


def _rewards_in_use(record: Responses, rewards: Sequence[float | None], k: int | None) -> dict[int, float]:
    """Index -> reward of those of the first k responses that have one."""
    count, name = len(record["responses"]), f"prompt {record['prompt_id']}"
    if count != len(rewards):
        raise ValueError(f"{name} has {count} responses but {len(rewards)} rewards")
    k = count if k is None else k
    if k < 2 or k > count:
        raise ValueError(f"{name} has {count} responses: a pair cannot be made of the first {k}")
    used = {j: reward for j, reward in enumerate(rewards[:k]) if reward is not None}
    for j, reward in used.items():
        if not math.isfinite(reward):
            raise ValueError(f"{name}: the reward of response {j} is {reward}, not a finite number")
    return used


def _choose(used: Mapping[int, float], choice: Choice, min_margin: float, seed: int) -> tuple[int, int] | str:
    """The chosen and the rejected response, or why there is no pair."""
    if len(used) < 2:
        return "fewer than two rewards"
    best = max(used, key=lambda j: (used[j], -j))
    lower = {j: reward for j, reward in used.items() if reward < used[best]}
    if not lower:
        return "tie"
    rejected = choice(lower, seed)
    return (best, rejected) if used[best] - used[rejected] >= min_margin else f"margin below {min_margin:g}"


def _side(record: Responses, j: int, reward: float) -> Side:
    response = record["responses"][j]
    side = Side(text=response["text"], tokens=response["tokens"], reward=reward)
    if (logprob := response.get("logprob")) is not None:
        side["logprob"] = logprob
    return side


def _wins_in_use(record: Responses, wins: Sequence[float | None], k: int | None) -> Sequence[float | None]:
    count = len(record["responses"]) if k is None else k
    if len(wins) != count:  # those over more responses are other probabilities
        raise ValueError(f"prompt {record['prompt_id']} has {len(wins)} win probabilities for {count} responses")
    return wins


def _probability(prompt_id: str, j: int, value: float | None) -> float:
    if value is None or not 0 <= value <= 1:
        raise ValueError(f"prompt {prompt_id}: the win probability of response {j} is {value}, not between 0 and 1")
    return value


def win_probabilities(rewards: Sequence[float | None], scale: float = 1.0) -> list[float | None]:
    """How probably each response wins against one drawn from all of them: the mean over j of sigmoid(scale * (r_i - r_j)).

    By the Bradley-Terry model; j runs over all responses with a reward, i itself included, against which it wins with 1/2
    (SPPO, arXiv 2405.00675, estimates the probability over the sampled responses). None where the reward is None.

    Args:
        rewards: of the responses of one prompt.
        scale: what a reward is multiplied with to become a log-odds; positive.

    Raises:
        ValueError: the scale is not positive, or it or a reward is not finite.
    """
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"the scale of rewards is {scale}: it must be positive and finite")
    used = [reward for reward in rewards if reward is not None]
    for j, reward in enumerate(rewards):
        if reward is not None and not math.isfinite(reward):
            raise ValueError(f"the reward of response {j} is {reward}, not a finite number")

    def sigmoid(log_odds: float) -> float:
        return (1 + math.tanh(log_odds / 2)) / 2  # never overflows

    return [
        None if reward is None else statistics.fmean(sigmoid(scale * (reward - other)) for other in used) for reward in rewards
    ]


def of_preferences(matrix: Sequence[Sequence[float | None]], k: int) -> list[float | None]:
    """Rewards of the first k responses out of a pairwise model's preferences: the mean of the first k columns of each row.

    So the rewards for k are the same whether or not more responses were compared. They are win probabilities already.

    Args:
        matrix: in row i and column j the probability that response i is better than response j, 1/2 on the diagonal, None
            where the model gave none, which is not counted.
        k: number of responses, at least 1.

    Returns:
        k rewards in [0, 1]; None where a response was compared with no other one (unless it is the only one).

    Raises:
        ValueError: the matrix has fewer than k rows or columns, or an entry that is not in [0, 1].
    """
    if not 1 <= k <= len(matrix) or any(len(row) < k for row in matrix[:k]):
        raise ValueError(f"preferences between {len(matrix)} responses cannot be used for the first {k}")
    rewards: list[float | None] = []
    for i, row in enumerate(matrix[:k]):
        known = {j: value for j, value in enumerate(row[:k]) if value is not None}
        for j, value in known.items():
            if not 0 <= value <= 1:
                raise ValueError(f"the preference for response {i} over response {j} is {value}, not between 0 and 1")
        compared = k == 1 or any(j != i for j in known)
        rewards.append(statistics.fmean(known.values()) if known and compared else None)
    return rewards

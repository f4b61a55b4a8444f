"""Preference pairs: the best and the worst response of each prompt by reward.

rewards [0.2, 1.0, 0.0, 1.0]   ->   chosen: response 1, rejected: response 2
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypedDict

from eva_hpc.store.records import Pair, Responses, Side


class SetAsidePair(TypedDict):
    """A prompt that gave no pair, and why."""

    prompt_id: str
    reason: str


def best_worst(responses: Responses, rewards: Sequence[float], k: int | None = None) -> Pair | None:
    """The pair (argmax, argmin) of the first k responses, or of all; the first index wins a tie (arXiv 2411.00062).

    None when all rewards are equal: such a prompt says nothing about what is preferred.

    Raises:
        ValueError: rewards and responses differ in number, there are fewer than k, k is below 2, or a reward is not finite.
    """
    sampled = responses["responses"]
    name = f"prompt {responses['prompt_id']}"
    if len(sampled) != len(rewards):
        raise ValueError(f"{name} has {len(sampled)} responses but {len(rewards)} rewards")
    k = len(sampled) if k is None else k
    if k < 2 or k > len(sampled):
        raise ValueError(f"{name} has {len(sampled)} responses: a pair cannot be made of the first {k}")
    first = list(rewards[:k])
    for j, reward in enumerate(first):
        if not math.isfinite(reward):
            raise ValueError(f"{name}: the reward of response {j} is {reward}, not a finite number")
    best, worst = first.index(max(first)), first.index(min(first))
    if first[best] == first[worst]:
        return None

    def side(j: int) -> Side:
        return Side(text=sampled[j]["text"], tokens=sampled[j]["tokens"], reward=first[j])

    return Pair(
        prompt_id=responses["prompt_id"],
        prompt=responses["prompt"],
        prompt_tokens=responses["prompt_tokens"],
        chosen=side(best),
        rejected=side(worst),
    )


def pairs(
    responses: Iterable[Responses], rewards: Mapping[str, Sequence[float]], k: int | None = None
) -> tuple[list[Pair], list[SetAsidePair]]:
    """The pairs of many prompts, in their order, and the prompts that gave none (reason "tie"); rewards by prompt id.

    Raises:
        ValueError: a prompt has no rewards, or as in `best_worst`; the message names the prompt.
    """
    made: list[Pair] = []
    set_aside: list[SetAsidePair] = []
    for record in responses:
        if record["prompt_id"] not in rewards:
            raise ValueError(f"prompt {record['prompt_id']} has responses but no rewards")
        pair = best_worst(record, rewards[record["prompt_id"]], k)
        if pair is None:
            set_aside.append({"prompt_id": record["prompt_id"], "reason": "tie"})
        else:
            made.append(pair)
    return made, set_aside

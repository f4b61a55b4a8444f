"""Rewards of the responses to prompts, and how informative they make the prompts.

    [0.2, 1.0, None, 0.4]   ->   mean 0.533…   best 1.0   worst 0.2   gap 0.8   missing 1

A response to which the reward model gave no number is not used; a prompt without any number has no measures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypedDict

from eva_hpc.method.informativeness import METRICS, NEEDS_IMPLICIT, informativeness


class RewardMeasures(TypedDict):
    """Of one prompt, in units of reward. `gap` is best minus worst, the metric A_min."""

    reward_mean: float
    reward_best: float
    reward_worst: float
    reward_gap: float
    rewards_missing: int


def reward_measures(rewards: Sequence[float | None]) -> RewardMeasures | None:
    """Of the rewards of one prompt's responses; None where there is no number. One number has gap 0."""
    given = [reward for reward in rewards if reward is not None]
    if not given:
        return None
    best, worst = max(given), min(given)
    return RewardMeasures(
        reward_mean=math.fsum(given) / len(given),
        reward_best=best,
        reward_worst=worst,
        reward_gap=best - worst,
        rewards_missing=len(rewards) - len(given),
    )


def informativeness_of_all(rewards: Mapping[str, Sequence[float | None]]) -> dict[str, dict[str, float]]:
    """Every metric that needs rewards only, of every prompt that has any: metric -> prompt id -> value.

    The inverse metrics are scaled over these prompts, so theirs compare within a set only.
    """
    return {metric: informativeness(metric, rewards) for metric in METRICS if metric not in NEEDS_IMPLICIT}

"""Rewards of a prompt: what is missing is not used, and counted."""

from __future__ import annotations

import pytest

from eva_hpc.report.curriculum.rewards import informativeness_of_all, reward_measures


def test_a_missing_reward_is_not_used_but_counted():
    assert reward_measures([0.2, 1.0, None, 0.4]) == {
        "reward_mean": pytest.approx(1.6 / 3),
        "reward_best": 1.0,
        "reward_worst": 0.2,
        "reward_gap": 0.8,
        "rewards_missing": 1,
    }
    assert reward_measures([0.5])["reward_gap"] == 0
    assert reward_measures([None, None]) is None
    assert reward_measures([]) is None


def test_every_metric_that_needs_rewards_only_is_there_for_every_prompt_with_a_reward():
    found = informativeness_of_all({"a": [0.0, 1.0, None], "b": [0.5, 0.5], "c": [None]})
    assert {"A_min", "A_avg", "A_dts", "var", "avg", "uniform", "inv_avg", "inv_A_min"} == set(found)
    assert found["A_min"] == {"a": 1.0, "b": 0.0}
    assert found["inv_A_min"] == {"a": 0.0, "b": 1.0}

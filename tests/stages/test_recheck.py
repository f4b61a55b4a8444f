"""Evolved prompts that the policy has nothing to learn from any more leave the round, each kept and counted."""

from __future__ import annotations

from collections import Counter

import orjson
import pytest

from eva_hpc.stages import pair, recheck
from eva_hpc.stages.contract import StageFailed


@pytest.fixture
def checked(bench, lab_round):
    """A round whose evolved prompts are all scored, and the node of those that are still informative."""
    lab = lab_round(count=24)
    inputs = lab.inputs(1.0)

    def make(quantile, metric="A_min"):
        spec = recheck.Spec(informativeness=metric, quantile=quantile, responses=lab.k)
        roles = ("base", "base_rewards", "evolved", "evolved_rewards")
        return lab.node(spec, **{role: inputs[role] for role in roles})

    make.lab, make.inputs = lab, inputs
    return make


def change_rewards(bench, node, change):
    """Rewrite the committed rewards of a node, one record after the other."""
    bench.make(node)
    records = bench.read(node, "rewards.jsonl")
    bench.put(node, "rewards.jsonl", [{**record, "rewards": change(i, record["rewards"])} for i, record in enumerate(records)])


def spread(rewards):
    return max(rewards) - min(rewards)


@pytest.mark.parametrize("quantile", [0.0, 0.5, 1.0])
def test_kept_is_what_reaches_the_quantile_of_the_base_prompts(bench, checked, quantile):
    import numpy as np

    node = checked(quantile)
    records = bench.make(node).manifest["records"]
    base, evolved = (
        {record["prompt_id"]: spread(record["rewards"]) for record in bench.read(checked.inputs[role], "rewards.jsonl")}
        for role in ("base_rewards", "evolved_rewards")
    )
    least = np.quantile(list(base.values()), quantile)
    admitted = [prompt["id"] for prompt in bench.read(checked.lab.evolved, "prompts.jsonl")]
    kept = [prompt["id"] for prompt in bench.read(node, "prompts.jsonl")]
    assert kept == [name for name in admitted if evolved[name] >= least], "in the order in which they came"
    aside = bench.read(node, "set_aside.jsonl") if records["set_aside"] else []
    assert records["in"] == len(admitted) == len(kept) + len(aside)
    assert dict(Counter(record["reason"] for record in aside)) == records["set_aside"]
    assert all(record["informativeness"] == evolved[record["id"]] < least for record in aside)


def test_the_whole_stays_the_number_of_base_prompts(bench, checked):
    artifact = bench.make(checked(0.5))
    assert orjson.loads((artifact.folder / "whole.json").read_bytes()) == {"whole": 24}


def test_a_child_without_any_reward_is_set_aside_for_that_reason(bench, checked):
    change_rewards(bench, checked.inputs["evolved_rewards"], lambda i, rewards: [None] * 4 if i < 2 else rewards)
    node = checked(0.0)
    assert bench.make(node).manifest["records"]["set_aside"]["no reward"] == 2


def test_a_base_prompt_without_reward_sets_no_measure(bench, checked):
    change_rewards(bench, checked.inputs["base_rewards"], lambda i, rewards: [None] * 4 if i else [0.0, 1.0, None, 0.0])
    change_rewards(bench, checked.inputs["evolved_rewards"], lambda i, rewards: [0.2, None, 0.3 if i else 1.2, 0.2])
    assert bench.make(checked(0.0)).manifest["records"]["out"] == 1


def test_evolved_prompts_beyond_the_number_of_base_prompts_are_not_measured(bench, lab_round):
    lab = lab_round(count=24)
    lab.selected = lab.select(sampling="weighted", fraction=0.5)
    lab.rewrites = lab.node(lab.rewrites.spec, selected=lab.selected)
    lab.evolved = lab.admitted(lab.rewrites)
    spec = recheck.Spec(informativeness="A_min", quantile=0.0, responses=lab.k)
    inputs = lab.inputs(1.0)
    node = lab.node(spec, **{role: one for role, one in inputs.items() if not role.endswith("_responses")})
    records = bench.make(node).manifest["records"]
    assert records["set_aside"]["beyond the ratio"] == records["in"] - 24 > 0


def test_none_kept_is_a_failure_that_says_why(bench, checked):
    change_rewards(bench, checked.inputs["base_rewards"], lambda i, rewards: [0.0, 1.0, 0.0, 0.0])
    change_rewards(bench, checked.inputs["evolved_rewards"], lambda i, rewards: [0.5] * 4)
    with pytest.raises(StageFailed, match=r"none of the \d+ evolved prompts is informative enough: \d+ no longer informative"):
        bench.make(checked(0.5))


def test_the_round_lacks_what_was_dropped_and_pairs_only_what_was_kept(bench, checked):
    node = checked(0.5)
    bench.make(node)
    kept = {prompt["id"] for prompt in bench.read(node, "prompts.jsonl")}
    spec = pair.Spec(responses=4, ratio=1.0, seed=1, round=1)
    pairs = checked.lab.node(spec, **{**checked.inputs, "evolved": node})
    folder = bench.make(pairs).folder
    mixture = orjson.loads((folder / "mixture.json").read_bytes())
    assert mixture == {"evolved": len(kept), "base": 0, "shortage": 24 - len(kept)}
    assert {one["prompt_id"] for one in bench.read(pairs, "pairs.jsonl")} <= kept


def test_a_metric_that_is_scaled_is_scaled_over_base_and_evolved_prompts_together(bench, checked):
    change_rewards(bench, checked.inputs["base_rewards"], lambda i, rewards: [0.0, 0.4 if i % 2 else 0.2, 0.0, 0.0])
    change_rewards(bench, checked.inputs["evolved_rewards"], lambda i, rewards: [0.0, 0.0, 1.0 if i % 2 else 0.1, 0.0])
    node = checked(0.0, "inv_A_min")
    bench.make(node)
    aside = bench.read(node, "set_aside.jsonl")
    assert {record["informativeness"] for record in aside} == {0.0}, "of a spread of 1, the largest of all"

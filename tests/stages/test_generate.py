"""Responses of a real engine: nested in their number and in the share of prompts, and the same from any number of shards."""

from __future__ import annotations

import pytest

from eva_hpc.config.recipe import Generation, LabChecker, LabPrompts
from eva_hpc.plan.graph import Node
from eva_hpc.stages import generate, prompts, score
from eva_hpc.stages.contract import Interrupted
from eva_hpc.store.records import read_jsonl
from eva_hpc.store.seeds import derive_seed

pytestmark = pytest.mark.slow

DECODING = Generation(temperature=1.0, top_p=1.0, max_new_tokens=8)
PROMPTS = Node(prompts.Spec(source=LabPrompts(count=10)), "start")


@pytest.fixture(scope="module")
def policy(policy_of, tiny_qwen2):
    return policy_of(tiny_qwen2)


def node(policy, responses=4, fraction=1.0, seed=1):
    spec = generate.Spec(generation=DECODING, responses=responses, fraction=fraction, seed=seed, round=1)
    return Node(spec, "round 1", {"policy": policy, "prompts": PROMPTS})


def sampled(bench, of):
    """The file itself, made anew even where a larger artifact would serve."""
    for source in of.inputs.values():
        bench.make(source)
    attempt = bench.prepare(of)
    bench.run(attempt)
    bench.commit(attempt)
    return read_jsonl(attempt.folder / "responses.jsonl")


def essence(records):
    return [
        (record["prompt_id"], [(one["text"], one["tokens"], one["finish"]) for one in record["responses"]])
        for record in records
    ]


def test_every_prompt_gets_its_responses_in_the_order_of_the_prompts(shared_bench, policy):
    records = sampled(shared_bench, node(policy))
    assert [record["prompt_id"] for record in records] == [p["id"] for p in shared_bench.read(PROMPTS, "prompts.jsonl")]
    assert {len(record["responses"]) for record in records} == {4}
    assert len({one["text"] for record in records for one in record["responses"]}) > 20
    assert all(0 < len(one["tokens"]) <= 8 and one["logprob"] < 0 for record in records for one in record["responses"])


def test_the_first_responses_to_the_first_prompts_are_the_smaller_experiment(shared_bench, policy):
    large = sampled(shared_bench, node(policy, 4, 1.0, seed=2))
    small = sampled(shared_bench, node(policy, 2, 0.5, seed=2))
    assert len(small) == 5
    assert essence(small) == [(name, responses[:2]) for name, responses in essence(large)[:5]]


def test_the_larger_artifact_serves_the_smaller_request(shared_bench, policy):
    shared_bench.make(node(policy, 4, 1.0, seed=3))
    asked = node(policy, 2, 0.5, seed=3)
    assert shared_bench.make(asked).folder == shared_bench.store.folder(node(policy, 4, 1.0, seed=3).identity)
    rewards = Node(
        score.Spec(reward=LabChecker(), responses=2, fraction=0.5), "round 1", {"responses": asked, "prompts": PROMPTS}
    )
    shared_bench.make(rewards)
    assert [len(record["rewards"]) for record in shared_bench.read(rewards, "rewards.jsonl")] == [2] * 5


@pytest.mark.parametrize("shards", [2, 3])
def test_two_or_three_shards_write_the_bytes_of_one(bench, policy, shards):
    found = []
    for count in (1, shards):
        for source in (PROMPTS, policy):
            bench.make(source)
        attempt = bench.prepare(node(policy), shards=count, chunk=3)
        bench.run(attempt)
        artifact = bench.commit(attempt)
        assert artifact.manifest["processes"] == count
        found.append((artifact.folder / "responses.jsonl").read_bytes())
        bench.store.set_aside(artifact)
    assert found[0] == found[1]


def test_a_stopped_stage_goes_on_to_the_same_bytes(bench, policy):
    whole = bench.make(node(policy), chunk=3)
    expected = (whole.folder / "responses.jsonl").read_bytes()
    bench.store.set_aside(whole)
    attempt = bench.prepare(node(policy), chunk=3)
    with pytest.raises(Interrupted):
        bench.run(attempt, stop=lambda: len(list(attempt.work.glob("chunk-*"))) == 2)
    assert bench.store.find(node(policy).identity) is None
    again = bench.prepare(node(policy), chunk=3)
    assert len(list(again.work.glob("chunk-*"))) == 2
    bench.run(again)
    assert (bench.commit(again).folder / "responses.jsonl").read_bytes() == expected


def test_seed_round_and_index_give_each_response_its_own_seed(shared_bench, policy):
    first, second = (essence(sampled(shared_bench, node(policy, seed=seed))) for seed in (1, 9))
    assert first != second
    assert derive_seed(1, 1, "a", 0) != derive_seed(1, 1, "a", 1)

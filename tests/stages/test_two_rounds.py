"""Two rounds in a row: where every prompt comes from can be followed to a base prompt, and nothing gets lost on the way."""

from __future__ import annotations

import random

import pytest

from eva_hpc.stages import recheck

COUNT, RATIO = 32, 0.8


@pytest.fixture(scope="module")
def rounds(shared_bench):
    """Two rounds, the second on the mixture that the first was trained on."""
    from eva_hpc.config.recipe import LabPolicy
    from eva_hpc.plan.graph import Node
    from eva_hpc.stages import start_policy
    from tests.stages.conftest import LabRound

    start = Node(start_policy.Spec(policy=LabPolicy()), "start")
    shared_bench.put(start, "nothing.jsonl", [])
    first = LabRound(shared_bench, start, count=COUNT)
    second = LabRound(shared_bench, start, number=2, base=first.mix(RATIO))
    for one in (first, second):
        shared_bench.make(one.pair(RATIO))
    shared_bench.make(second.mix(RATIO))
    return first, second


def test_every_chain_of_parents_ends_at_a_base_prompt_one_step_up_at_a_time(shared_bench, rounds):
    """By the rewrites of a round: also what was not admitted may be a parent."""
    first, second = rounds
    origin = {prompt["id"]: prompt for prompt in shared_bench.read(first.prompts, "prompts.jsonl")}
    known = dict(origin)
    for one in rounds:
        base = {prompt["id"]: prompt for prompt in shared_bench.read(one.prompts, "prompts.jsonl")}
        assert base.items() <= known.items(), "the base of a round has come through"
        for chain in shared_bench.read(one.rewrites, "rewrites.jsonl"):
            above = {chain["root"]: base[chain["root"]]}
            for child in chain["children"]:
                assert child["id"] not in above
                parent = above[child["parent"]]
                assert (child["depth"], child["round"]) == (parent["depth"] + 1, one.number)
                above[child["id"]] = child
            known |= {name: prompt for name, prompt in above.items() if name not in known}
    for prompt in shared_bench.read(second.mix(RATIO), "prompts.jsonl"):
        seen = set()
        while prompt["parent"] is not None:
            assert prompt["id"] not in seen
            seen.add(prompt["id"])
            prompt = known[prompt["parent"]]
        assert prompt["id"] in origin
    assert max(prompt["depth"] for prompt in known.values()) > 4, "some were evolved in both rounds"


def test_nothing_is_lost_between_what_is_read_and_what_is_written(shared_bench, rounds):
    for one in rounds:
        for node in (one.rewards, one.rewrites, one.evolved, one.pair(RATIO), one.mix(RATIO)):
            records = shared_bench.records(node)
            assert records["in"] == records["out"] + sum(records["set_aside"].values()), node.spec.stage
        admitted, mixed = (shared_bench.read(node, "prompts.jsonl") for node in (one.evolved, one.mix(RATIO)))
        base = {prompt["id"] for prompt in shared_bench.read(one.prompts, "prompts.jsonl")}
        assert len(mixed) == COUNT
        assert {prompt["id"] for prompt in mixed} <= base | {prompt["id"] for prompt in admitted}


def test_a_round_has_as_many_prompts_as_the_one_before(shared_bench, rounds):
    for one in rounds:
        kinds = [prompt["round"] == one.number for prompt in shared_bench.read(one.mix(RATIO), "prompts.jsonl")]
        assert (sum(kinds), len(kinds)) == (26, COUNT)


@pytest.mark.parametrize("chunk", [3, 100])
def test_a_round_does_not_depend_on_chunks_or_on_the_order_of_its_base_prompts(bench, lab_round, chunk):
    lab = lab_round(count=COUNT)
    spec = recheck.Spec(informativeness="A_min", quantile=0.3, responses=lab.k)
    found = []
    for shuffle in (False, True):
        inputs = lab.inputs(1.0)
        roles = ("base", "base_rewards", "evolved", "evolved_rewards")
        checked = lab.node(spec, **{role: inputs[role] for role in roles})
        mixed = lab.node(lab.mix(RATIO).spec, base=lab.prompts, evolved=checked)
        pairs = lab.node(lab.pair(RATIO).spec, **{**inputs, "evolved": checked})
        for node in (pairs, mixed):
            bench.make(node, chunk=8 if shuffle else chunk)
        found.append([bench.read(node, name) for node, name in ((pairs, "pairs.jsonl"), (mixed, "prompts.jsonl"))])
        if not shuffle:
            bench.again(pairs, mixed, checked, lab.evolved, lab.rewrites, lab.selected, lab.rewards)
            bench.again(inputs["evolved_rewards"])
            prompts = bench.read(lab.prompts, "prompts.jsonl")
            random.Random(7).shuffle(prompts)
            bench.put(lab.prompts, "prompts.jsonl", prompts)
    assert found[0] == found[1]

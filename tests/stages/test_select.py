"""Every way to choose the prompts to evolve, over real rewards of a round in the lab."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from eva_hpc.method.topics import topics_of
from eva_hpc.stages import response_logps, select
from eva_hpc.stages.contract import StageFailed
from eva_hpc.store.seeds import derive_seed


def chosen(bench, node):
    """The ids of the prompts to evolve, in their order."""
    bench.make(node)
    return [prompt["id"] for prompt in bench.read(node, "prompts.jsonl")]


def values(bench, node):
    return {record["prompt_id"]: record["informativeness"] for record in bench.read(node, "informativeness.jsonl")}


def test_a_count_takes_that_many_and_all_where_there_are_fewer(bench, lab_round):
    lab = lab_round(count=24)
    assert [len(chosen(bench, lab.select(sampling="weighted", fraction=1.0, count=count))) for count in (1, 5, 24, 99)] == [
        1,
        5,
        24,
        24,
    ]


def test_a_smaller_choice_is_part_of_a_larger_one(bench, lab_round):
    lab = lab_round(count=24)
    for sampling in ("weighted", "greedy", "stratified"):
        small, large = (set(chosen(bench, lab.select(sampling=sampling, fraction=1.0, count=count))) for count in (4, 11))
        assert small < large


def test_greedy_takes_the_most_informative_and_weighted_depends_on_the_seed(bench, lab_round):
    lab = lab_round(count=24)
    greedy = lab.select(sampling="greedy", fraction=0.25)
    taken = chosen(bench, greedy)
    found = values(bench, greedy)
    assert min(found[name] for name in taken) >= max(value for name, value in found.items() if name not in taken)
    one, other = (chosen(bench, lab.select(sampling="weighted", fraction=0.25, seed=seed)) for seed in (1, 2))
    assert one != other


def test_stratified_takes_from_all_quarters_of_the_informativeness(bench, lab_round):
    lab = lab_round(count=24)
    node = lab.select(sampling="stratified", fraction=1.0, count=8)
    taken = set(chosen(bench, node))
    ranked = sorted(values(bench, node).items(), key=lambda item: item[1])
    quarters = Counter(place * 4 // 24 for place, (name, _) in enumerate(ranked) if name in taken)
    assert max(quarters.values()) <= 4
    assert len(quarters) >= 3


@pytest.mark.slow
def test_topics_are_those_of_the_texts_and_every_topic_has_its_share(bench, lab_round):
    lab = lab_round(count=24)
    taken = chosen(bench, lab.select(sampling="topic", fraction=1.0, count=8, topics=4))
    texts = {prompt["id"]: prompt["prompt"] for prompt in bench.read(lab.prompts, "prompts.jsonl")}
    topics = topics_of(texts, 4, derive_seed(1, 1, "select"))
    sizes, drawn = Counter(topics.values()), Counter(topics[name] for name in taken)
    assert all(drawn[topic] >= min(2, size) for topic, size in sizes.items())


@pytest.mark.parametrize("sampling", ["weighted", "greedy", "stratified"])
def test_the_order_of_the_base_prompts_changes_nothing(bench, lab_round, sampling):
    lab = lab_round(count=24)
    node = lab.select(sampling=sampling, fraction=0.25)
    before = chosen(bench, node)
    for source, name in ((lab.prompts, "prompts.jsonl"), (lab.rewards, "rewards.jsonl")):
        records = bench.read(source, name)
        random.Random(5).shuffle(records)
        bench.put(source, name, records)
    bench.again(node)
    assert set(chosen(bench, node)) == set(before)


def test_prompts_without_a_reward_are_not_chosen_and_counted(bench, lab_round):
    lab = lab_round(count=24)
    bench.make(lab.rewards)
    records = bench.read(lab.rewards, "rewards.jsonl")
    for record in records[:20]:
        record["rewards"] = [None] * 4
    records[20]["rewards"][1] = None
    bench.put(lab.rewards, "rewards.jsonl", records)
    node = lab.select(sampling="weighted", fraction=1.0)
    assert bench.make(node).manifest["records"] == {"in": 24, "out": 4, "set_aside": {"no reward": 20}}
    assert len(bench.read(node, "set_aside.jsonl")) == 20
    assert len(values(bench, node)) == 4


def test_without_any_reward_nothing_can_be_chosen(bench, lab_round):
    lab = lab_round(count=4)
    bench.make(lab.rewards)
    nothing = [{**record, "rewards": [None] * 4} for record in bench.read(lab.rewards, "rewards.jsonl")]
    bench.put(lab.rewards, "rewards.jsonl", nothing)
    with pytest.raises(StageFailed, match="none of the 4 prompts has a reward"):
        bench.make(lab.selected)


def test_alignment_potential_is_the_explicit_margin_less_the_implicit_one(bench, lab_round):
    """Of the first k responses, although the files have more; implicit rewards are beta (policy's - start's log-prob)."""
    lab = lab_round(count=8, k=4)
    bench.make(lab.rewards)
    rewards = {record["prompt_id"]: record["rewards"] for record in bench.read(lab.rewards, "rewards.jsonl")}
    draw = random.Random(1)
    logps = {which: {name: [-10 * draw.random() for _ in range(4)] for name in rewards} for which in ("policy", "start")}
    reads = {"prompts": lab.prompts, "rewards": lab.rewards}
    for which, policy in (("policy", lab.responses), ("start", lab.start)):  # any two nodes
        inputs = {"policy": policy, "responses": lab.responses, "prompts": lab.prompts}
        node = reads[f"{which}_logps"] = lab.node(response_logps.Spec(responses=4, fraction=1.0), **inputs)
        bench.put(node, "logps.jsonl", [{"prompt_id": name, "logps": values} for name, values in logps[which].items()])
    settings = {"sampling": "greedy", "fraction": 0.25, "responses": 3, "seed": 1, "round": 1}
    spec = select.Spec(informativeness="alignment_potential", implicit_beta=0.5, reward_scale=2.0, **settings)
    node = lab.node(spec, **reads)
    bench.make(node)

    expected = {}
    for name, given in rewards.items():
        explicit = given[:3]
        best, worst = explicit.index(max(explicit)), explicit.index(min(explicit))
        ratio = [logps["policy"][name][j] - logps["start"][name][j] for j in range(3)]
        expected[name] = 2.0 * (explicit[best] - explicit[worst]) - 0.5 * (ratio[best] - ratio[worst])
    assert values(bench, node) == pytest.approx(expected)
    assert set(chosen(bench, node)) == set(sorted(expected, key=expected.get)[-2:])


def test_before_any_training_the_potential_is_the_gap_of_the_rewards(bench, lab_round):
    lab = lab_round(count=8)
    gap = lab.select(sampling="greedy", fraction=0.25)
    potential = lab.select("alignment_potential", sampling="greedy", fraction=0.25, implicit_beta=0.1)
    assert chosen(bench, potential) == chosen(bench, gap)
    assert values(bench, potential) == values(bench, gap)

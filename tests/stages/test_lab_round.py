"""Score, select, evolve, admit, mix and pair of one round, on real lab tasks."""

from __future__ import annotations

import orjson
import pytest

from eva_hpc.lab.checker import answer, reward
from eva_hpc.method.mixing import share
from eva_hpc.stages.contract import StageFailed
from eva_hpc.store.records import read_jsonl

RATIOS = [1.0, 0.8, 0.2, 0.0]


def mixture(bench, node):
    return orjson.loads((bench.store.find(node.identity).folder / "mixture.json").read_bytes())


def test_rewards_are_the_checkers_in_the_order_of_prompts_and_responses(bench, lab_round):
    lab = lab_round()
    bench.make(lab.rewards)
    rewards = bench.read(lab.rewards, "rewards.jsonl")
    responses = bench.read(lab.responses, "responses.jsonl")
    assert [record["prompt_id"] for record in rewards] == [record["prompt_id"] for record in responses]
    for given, record in zip(rewards, responses, strict=True):
        assert given["rewards"] == [reward(record["prompt"], one["text"], True) for one in record["responses"]]


def test_an_unfinished_response_earns_half(bench, lab_round):
    lab = lab_round(count=4)
    records = bench.read(lab.responses, "responses.jsonl")
    for record in records:
        record["responses"][0] |= {"text": answer(record["prompt"]), "finish": "length"}
    bench.put(lab.responses, "responses.jsonl", records)
    bench.make(lab.rewards)
    assert {record["rewards"][0] for record in bench.read(lab.rewards, "rewards.jsonl")} == {0.5}


def test_a_quarter_of_the_prompts_is_selected_and_all_are_estimated(bench, lab_round):
    lab = lab_round(count=24)
    artifact = bench.make(lab.selected)
    chosen = bench.read(lab.selected, "prompts.jsonl")
    estimates = bench.read(lab.selected, "informativeness.jsonl")
    assert len(chosen) == 6
    assert [record["prompt_id"] for record in estimates] == [
        prompt["id"] for prompt in bench.read(lab.prompts, "prompts.jsonl")
    ]
    assert {record["prompt_id"] for record in estimates if record["selected"]} == {prompt["id"] for prompt in chosen}
    assert sum(record["weight"] for record in estimates) == pytest.approx(1)
    assert artifact.manifest["records"] == {"in": 24, "out": 6, "set_aside": {}}


def test_selection_reads_the_first_k_rewards_only(bench, lab_round):
    """What is computed for more responses gives a small k the same choice."""
    lab = lab_round(k=4)
    bench.make(lab.selected)
    narrow = {name: bench.read(lab.selected, name) for name in ("prompts.jsonl", "informativeness.jsonl")}
    rewards = bench.read(lab.rewards, "rewards.jsonl")
    for record in rewards:
        record["rewards"] += [5.0, -5.0]
    bench.put(lab.rewards, "rewards.jsonl", rewards)
    attempt = bench.prepare(lab.selected)
    bench.run(attempt)
    assert {name: read_jsonl(attempt.folder / name) for name in narrow} == narrow


def test_scoring_reads_the_first_k_responses_only(bench, lab_round):
    lab = lab_round(k=4)
    bench.make(lab.rewards)
    narrow = bench.read(lab.rewards, "rewards.jsonl")
    records = bench.read(lab.responses, "responses.jsonl")
    for record in records:
        record["responses"] += record["responses"][:2]
    bench.put(lab.responses, "responses.jsonl", records)
    attempt = bench.prepare(lab.rewards)
    bench.run(attempt)
    bench.commit(attempt)
    assert bench.read(lab.rewards, "rewards.jsonl") == narrow


def test_evolved_prompts_are_new_tasks_with_their_lineage(bench, lab_round):
    lab = lab_round()
    artifact = bench.make(lab.evolved)
    evolved = bench.read(lab.evolved, "prompts.jsonl")
    base = {prompt["prompt"] for prompt in bench.read(lab.prompts, "prompts.jsonl")}
    assert not {prompt["prompt"] for prompt in evolved} & base
    assert all(answer(prompt["prompt"]) for prompt in evolved)
    assert len({prompt["id"] for prompt in evolved}) == len(evolved)
    roots = {prompt["id"] for prompt in bench.read(lab.selected, "prompts.jsonl")}
    for prompt in evolved:
        assert (prompt["depth"] == 1) == (prompt["parent"] in roots)
        assert 1 <= prompt["depth"] <= 4
        assert prompt["operator"] in ("deepen", "lengthen", "switch", "renew")
        assert prompt["round"] == 1
    made = bench.store.find(lab.rewrites.identity).manifest["records"]
    assert made["in"] == 6 * 4 == made["out"] + sum(made["set_aside"].values())
    records = artifact.manifest["records"]
    assert records["in"] == made["out"] == records["out"] + sum(records["set_aside"].values())


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_evolved_prompts_do_not_depend_on_the_chunks(bench, lab_round, chunk):
    lab = lab_round()
    bench.make(lab.evolved, chunk=2)
    expected = bench.read(lab.evolved, "prompts.jsonl")
    for node in (lab.rewrites, lab.evolved):
        bench.store.set_aside(bench.store.find(node.identity))
    bench.make(lab.evolved, chunk=chunk)
    assert bench.read(lab.evolved, "prompts.jsonl") == expected


@pytest.mark.parametrize("ratio", RATIOS)
def test_pairs_come_from_evolved_and_base_prompts_in_the_ratio(bench, lab_round, ratio):
    lab = lab_round()
    node = lab.pair(ratio)
    artifact = bench.make(node)
    evolved = len(bench.read(lab.evolved, "prompts.jsonl")) if ratio else 0
    found, wanted = mixture(bench, node), share(24, ratio)
    assert found == {"evolved": min(wanted, evolved), "base": 24 - wanted, "shortage": max(0, wanted - evolved)}
    records = artifact.manifest["records"]
    assert records["in"] == found["evolved"] + found["base"] == records["out"] + sum(records["set_aside"].values())
    base = {prompt["id"] for prompt in bench.read(lab.prompts, "prompts.jsonl")}
    made = bench.read(node, "pairs.jsonl")
    assert all(pair["chosen"]["reward"] > pair["rejected"]["reward"] for pair in made)
    assert (ratio == 1.0) == (not base & {pair["prompt_id"] for pair in made})
    assert (ratio == 0.0) == (base >= {pair["prompt_id"] for pair in made})


@pytest.mark.parametrize("ratio", [0.8, 0.2])
def test_more_evolved_responses_than_the_ratio_needs_change_no_pair(bench, lab_round, ratio):
    """The share that is generated is a prefix of the order in which the mixture takes them."""
    lab = lab_round()
    node = lab.pair(ratio)
    bench.make(node)
    exact = bench.read(node, "pairs.jsonl")
    for role in ("evolved_responses", "evolved_rewards"):
        bench.store.set_aside(bench.store.find(node.inputs[role].identity))
    bench.make(lab.inputs(ratio, generated=1.0)["evolved_rewards"])
    for role in ("evolved_responses", "evolved_rewards"):
        held = bench.store.find(node.inputs[role].identity)
        assert held.manifest["identity"]["nested"]["fraction"] == 1.0
    bench.store.set_aside(bench.store.find(node.identity))
    attempt = bench.prepare(node)
    bench.run(attempt)
    assert read_jsonl(attempt.folder / "pairs.jsonl") == exact


def test_the_mixture_of_the_next_round_is_the_one_that_was_trained_on(bench, lab_round):
    lab = lab_round()
    pair, mix = lab.pair(0.8), lab.mix(0.8)
    bench.make(pair)
    artifact = bench.make(mix)
    prompts = [prompt["id"] for prompt in bench.read(mix, "prompts.jsonl")]
    tied = {record["prompt_id"] for record in bench.read(pair, "set_aside.jsonl")}
    paired = [pair["prompt_id"] for pair in bench.read(pair, "pairs.jsonl")]
    assert [name for name in prompts if name not in tied] == paired
    assert artifact.manifest["records"]["out"] == len(set(prompts)) == len(prompts)


def test_too_few_evolved_prompts_are_reported_as_shortage(bench, lab_round):
    lab = lab_round()
    bench.make(lab.evolved)
    bench.put(lab.evolved, "prompts.jsonl", bench.read(lab.evolved, "prompts.jsonl")[:5])
    node = lab.pair(0.8)
    bench.make(node)
    assert mixture(bench, node) == {"evolved": 5, "base": 5, "shortage": 14}


def test_prompts_whose_rewards_are_all_equal_are_set_aside(bench, lab_round):
    lab = lab_round()
    node = lab.pair(0.0)
    bench.make(lab.rewards)
    rewards = bench.read(lab.rewards, "rewards.jsonl")
    for record in rewards[:20]:
        record["rewards"] = [0.5] * 4
    bench.put(lab.rewards, "rewards.jsonl", rewards)
    artifact = bench.make(node)
    assert artifact.manifest["records"]["set_aside"]["tie"] >= 20
    tied = {record["prompt_id"] for record in bench.read(node, "set_aside.jsonl")}
    assert tied >= {record["prompt_id"] for record in rewards[:20]}
    assert not tied & {pair["prompt_id"] for pair in bench.read(node, "pairs.jsonl")}


def test_no_pair_at_all_is_a_failure_that_says_why(bench, lab_round):
    lab = lab_round()
    lab.respond(lab.prompts, 1.0, same=True)
    with pytest.raises(StageFailed, match="none of the 24 prompts gives a pair: 24 tie"):
        bench.make(lab.pair(0.0))


def test_too_few_responses_in_an_artifact_are_an_error_and_not_a_smaller_k(bench, lab_round):
    lab = lab_round(k=4)
    records = bench.read(lab.responses, "responses.jsonl")
    records[3]["responses"].pop()
    bench.put(lab.responses, "responses.jsonl", records)
    with pytest.raises(ValueError, match="has 3 responses, not 4"):
        bench.make(lab.rewards)


def test_a_round_does_not_change_when_it_is_done_again(bench, lab_round):
    lab = lab_round()
    node = lab.pair(0.8)
    bench.make(node)
    first = (bench.store.find(node.identity).folder / "pairs.jsonl").read_bytes()
    for one in (node, lab.evolved, lab.rewrites, lab.selected):
        bench.store.set_aside(bench.store.find(one.identity))
    bench.make(node)
    assert (bench.store.find(node.identity).folder / "pairs.jsonl").read_bytes() == first

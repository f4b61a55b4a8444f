"""Log-probs of sampled responses under the start policy: those that plain transformers gives, from any number of shards."""

from __future__ import annotations

import pytest

from eva_hpc.config.recipe import Generation, LabPrompts
from eva_hpc.plan.graph import Node
from eva_hpc.stages import generate, prompts, response_logps
from eva_hpc.store.records import read_jsonl

pytestmark = pytest.mark.slow

DECODING = Generation(temperature=1.0, top_p=0.8, max_new_tokens=10)
PROMPTS = Node(prompts.Spec(source=LabPrompts(count=7)), "start")


@pytest.fixture(scope="module", params=["tiny_qwen2", "tiny_gemma2"])
def model(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def sampled(shared_bench, policy_of, model):
    """The policy and the node of its responses to the prompts, of very different lengths."""
    policy = policy_of(model)
    spec = generate.Spec(generation=DECODING, responses=3, fraction=1.0, seed=1, round=1)
    responses = Node(spec, "round 1", {"policy": policy, "prompts": PROMPTS})
    shared_bench.make(responses)
    return policy, responses


def node(sampled, responses=3, fraction=1.0):
    policy, source = sampled
    spec = response_logps.Spec(responses=responses, fraction=fraction)
    return Node(spec, "round 1", {"policy": policy, "responses": source, "prompts": PROMPTS})


def written(bench, of, **settings):
    """The file as this many shards write it."""
    attempt = bench.prepare(of, **settings)
    bench.run(attempt)
    artifact = bench.commit(attempt)
    found = read_jsonl(artifact.folder / "logps.jsonl")
    bench.store.set_aside(artifact)
    return found


def test_they_are_those_of_plain_transformers_and_of_the_sampler(shared_bench, sampled, model):
    import torch
    from transformers import AutoModelForCausalLM

    net = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation="eager").eval()
    found = {record["prompt_id"]: record["logps"] for record in written(shared_bench, node(sampled))}
    records = shared_bench.read(sampled[1], "responses.jsonl")
    assert list(found) == [record["prompt_id"] for record in records]
    for record in records:
        asked = record["prompt_tokens"]
        for value, response in zip(found[record["prompt_id"]], record["responses"], strict=True):
            tokens = response["tokens"]
            with torch.no_grad():
                table = net(torch.tensor([asked + tokens])).logits[0].double().log_softmax(-1)
            plain = sum(float(table[len(asked) - 1 + place, token]) for place, token in enumerate(tokens))
            assert value == pytest.approx(plain, abs=1e-4)
            assert value == pytest.approx(response["logprob"], abs=1e-3), "the sampler is the start policy here"
    assert len({len(one["tokens"]) for record in records for one in record["responses"]}) > 1


def test_shards_chunks_and_batches_change_nothing(shared_bench, sampled):
    whole = written(shared_bench, node(sampled), chunk=100)
    for shards, chunk in ((1, 1), (2, 2), (3, 3)):
        parts = written(shared_bench, node(sampled), shards=shards, chunk=chunk)
        assert [record["prompt_id"] for record in parts] == [record["prompt_id"] for record in whole]
        for one, other in zip(parts, whole, strict=True):
            assert one["logps"] == pytest.approx(other["logps"], abs=1e-4)


def test_batches_of_one_prompt_and_rows_that_share_nothing_give_the_same(shared_bench, sampled, monkeypatch):
    from eva_hpc.stages.policy import read_policy
    from eva_hpc.training import teacher_forcing
    from eva_hpc.training.packing import Tree

    records = shared_bench.read(sampled[1], "responses.jsonl")
    trees = [Tree(record["prompt_tokens"], tuple(one["tokens"] for one in record["responses"])) for record in records]
    source = read_policy(shared_bench.store.find(sampled[0].identity).folder)
    large, small = (teacher_forcing.TeacherForcing(source, 1, size).log_probs(trees) for size in (4096, 1))
    monkeypatch.setattr(teacher_forcing, "supports", lambda config: False)
    padded = teacher_forcing.TeacherForcing(source, 1, 512).log_probs(trees)
    for one, *others in zip(large, small, padded, strict=True):
        assert all(other == pytest.approx(one, abs=1e-4) for other in others)
    assert teacher_forcing.TeacherForcing(source, 1, 4096).log_probs([]) == []


def test_the_first_responses_to_the_first_prompts_are_the_smaller_experiment(shared_bench, sampled):
    large, small = (written(shared_bench, node(sampled, *part)) for part in ((3, 1.0), (2, 0.5)))
    assert len(small) == 4
    for one, other in zip(small, large, strict=False):
        assert one["prompt_id"] == other["prompt_id"]
        assert one["logps"] == pytest.approx(other["logps"][:2], abs=1e-4)

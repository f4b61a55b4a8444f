"""Evolving through a real HTTP server: bad answers are set aside one by one, a server that is no use fails the stage."""

from __future__ import annotations

import pytest

from eva_hpc.config.creator import OpenAIEvolver
from eva_hpc.plan.graph import Node
from eva_hpc.stages import evolve
from eva_hpc.stages.contract import StageFailed
from tests.stages.chat_server import completion

KEY = "sk-secret-of-the-test"


@pytest.fixture
def evolved(server, lab_round, monkeypatch):
    """The node of prompts evolved by the server: two steps for each of four prompts."""
    monkeypatch.setenv("TEST_KEY", KEY)
    evolver = OpenAIEvolver(model="m", base_url=server.url, api_key_env="TEST_KEY", concurrency=3, max_new_tokens=50)
    spec = evolve.Spec(evolver=evolver, evolutions=2, seed=1, round=1)
    return Node(spec, "round 1", lab_round(count=16).rewrites.inputs)


def test_answers_become_prompts_and_each_step_starts_from_the_one_before(bench, server, evolved):
    artifact = bench.make(evolved)
    prompts = {prompt["id"]: prompt for prompt in children(bench, evolved)}
    assert artifact.manifest["records"] == {"in": 8, "out": 8, "set_aside": {}}
    for prompt in prompts.values():
        assert prompt["prompt"].startswith("Evolved task ")
        assert prompt["depth"] == 1 or prompts[prompt["parent"]]["depth"] == 1
    second = [body["messages"][0]["content"] for body in server.requests if "Evolved task" in body["messages"][0]["content"]]
    assert len(second) == 4
    assert {body["max_tokens"] for body in server.requests} == {50}
    assert len({body["seed"] for body in server.requests}) == 8


def test_the_key_goes_to_the_server_and_into_no_file(bench, server, evolved):
    bench.make(evolved)
    assert server.keys == {f"Bearer {KEY}"}
    assert not [path for path in bench.root.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def test_an_answer_without_a_prompt_is_set_aside_and_its_chain_goes_on_from_the_parent(bench, server, evolved):
    server.answer = lambda number, body: (
        200,
        completion("I would rather not." if number < 4 else f"<new_prompt>Task {number}</new_prompt>"),
    )
    artifact = bench.make(evolved)
    assert artifact.manifest["records"]["set_aside"] == {"rewrite failed: no new prompt in the answer": 4}
    assert {prompt["depth"] for prompt in children(bench, evolved)} == {1}
    aside = bench.read(evolved, "set_aside.jsonl")
    assert {(record["step"], record["operator"] != "") for record in aside} == {(0, True)}


@pytest.mark.parametrize(
    ("status", "content", "problem"),
    [
        (200, b'{"choices": []}', "malformed"),
        (200, completion(None), "empty"),
        (400, b"content filter", "rejected"),
        (200, completion("<new_prompt>half \ud83d</new_prompt>"), "not valid Unicode"),
    ],
)
def test_one_bad_answer_is_set_aside_and_spoils_no_other(bench, server, evolved, status, content, problem):
    usual = server.answer
    server.answer = lambda number, body: (status, content) if number == 2 else usual(number, body)
    artifact = bench.make(evolved)
    assert artifact.manifest["records"] == {"in": 8, "out": 7, "set_aside": {f"rewrite failed: {problem}": 1}}


def test_an_answer_that_a_chain_had_before_is_set_aside(bench, server, evolved):
    """Its id is that of its text: as its own ancestor it would make a circle of the lineage."""
    server.answer = lambda number, body: (200, completion("<new_prompt>The only idea</new_prompt>"))
    artifact = bench.make(evolved)
    assert artifact.manifest["records"] == {"in": 8, "out": 4, "set_aside": {"rewrite failed: nothing new": 4}}
    assert {record["step"] for record in bench.read(evolved, "set_aside.jsonl")} == {1}


def test_the_same_answer_to_all_is_one_prompt_and_the_rest_duplicates(bench, server, evolved, lab_round):
    server.answer = lambda number, body: (200, completion("<new_prompt>The only idea</new_prompt>"))
    artifact = bench.make(lab_round(count=16).admitted(evolved))
    assert artifact.manifest["records"] == {"in": 4, "out": 1, "set_aside": {"duplicate of an evolved prompt": 3}}


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_of_all_requests_fails_the_stage_and_says_why(bench, server, evolved, status):
    server.answer = lambda number, body: (status, b"no such key " + KEY.encode())
    with pytest.raises(StageFailed, match=rf"m at {server.url} refuses all requests: HTTP {status}: no such key \[key\]"):
        bench.make(evolved)


def test_when_no_answer_can_be_used_the_stage_fails_with_the_reasons(bench, server, evolved):
    server.answer = lambda number, body: (400, b"content filter")
    with pytest.raises(StageFailed, match="none of the 8 rewrites can be used: 8 rewrite failed: rejected"):
        bench.make(evolved)


def test_a_parameter_that_the_server_does_not_know_fails_the_stage_at_once(bench, server, evolved):
    server.answer = lambda number, body: (400, b"unknown parameter: seed")
    with pytest.raises(StageFailed, match=r"m at .* refuses all requests: HTTP 400 for the parameter seed"):
        bench.make(evolved)
    assert len(server.requests) <= 3  # as many as are in flight at once


def test_what_was_paid_for_is_not_asked_again_after_a_failure(bench, server, evolved):
    usual = server.answer
    server.answer = lambda number, body: usual(number, body) if number < 4 else (401, b"quota used up")
    with pytest.raises(StageFailed, match="quota used up"):
        bench.make(evolved, chunk=2)
    server.answer = usual
    asked = len(server.requests)
    bench.make(evolved, chunk=2)
    assert len(server.requests) - asked == 4


@pytest.mark.slow
def test_evolved_prompts_of_too_many_tokens_are_set_aside_and_counted(
    bench, server, evolved, lab_round, policy_of, tokenizer_only
):
    usual = server.answer
    long = completion(f"<new_prompt>{'日' * 30}</new_prompt>")
    server.answer = lambda number, body: (200, long) if number == 2 else usual(number, body)
    node = lab_round(count=16).admitted(evolved, max_tokens=60, policy=policy_of(tokenizer_only))
    assert bench.make(node).manifest["records"] == {"in": 8, "out": 7, "set_aside": {"too long": 1}}


def children(bench, evolved):
    """The evolved prompts of all chains."""
    return [child for chain in bench.read(evolved, "rewrites.jsonl") for child in chain["children"]]

"""Ratings by a real HTTP server that is interrupted, goes away, or refuses: what was paid for is never asked again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from eva_hpc.cluster.execution import mark_of_progress
from eva_hpc.config.recipe import Generation, LabPrompts
from eva_hpc.config.reward import OpenAIScorer
from eva_hpc.plan.graph import Node
from eva_hpc.stages import generate, prompts, score
from eva_hpc.stages.contract import Interrupted, StageFailed, StageUnavailable
from tests.benchmarks.judge_server import JudgeServer, Says, Sends, running_judge

BUSY = Sends(503, b"overloaded", (("Retry-After", "0"),))
ASKED = 8 * 3


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with running_judge() as server:
        server.rule = lambda call: Says(f"<rating>{1 + int(call.digest, 16) % 10}</rating>")
        yield server


@pytest.fixture
def rated(bench, server) -> Node:
    """The node of rewards of eight prompts with three responses each."""
    asked = Node(prompts.Spec(source=LabPrompts(count=8)), "start")
    bench.make(asked)
    answered = Node(
        generate.Spec(generation=Generation(), responses=3, fraction=1.0, seed=1, round=1), "round 1", {"prompts": asked}
    )
    records = [
        {"prompt_id": prompt["id"], "prompt": prompt["prompt"], "prompt_tokens": [1],
         "responses": [{"text": f"Answer {j}", "tokens": [1], "finish": "stop", "logprob": -1.0} for j in range(3)]}
        for prompt in bench.read(asked, "prompts.jsonl")
    ]  # fmt: skip
    bench.put(answered, "responses.jsonl", records)
    scorer = OpenAIScorer(model="judge-1", base_url=server.url, concurrency=3)
    spec = score.Spec(reward=scorer, responses=3, fraction=1.0)
    return Node(spec, "round 1", {"responses": answered, "prompts": asked})


def test_a_stage_that_is_told_to_stop_keeps_every_answer_and_a_new_attempt_asks_only_for_the_rest(bench, server, rated):
    attempt = bench.prepare(rated, chunk=8)
    before = mark_of_progress(attempt.work)
    with pytest.raises(Interrupted):
        bench.run(attempt, stop=lambda: len(server.calls) >= 10)
    assert 10 <= len(server.paid) < ASKED
    assert mark_of_progress(attempt.work) != before, "a stage that has only got answers has got on"

    bench.make(rated, chunk=8)
    assert (len(server.paid), server.paid.total()) == (ASKED, ASKED)


@pytest.mark.parametrize("chunk", [8, 3])
def test_one_request_without_an_answer_costs_no_other_and_makes_no_difference_afterwards(bench, server, rated, chunk):
    bench.make(rated)
    expected = bench.read(rated, "rewards.jsonl")
    bench.again(rated)
    unlucky = server.calls[4].digest
    usual, paid = server.rule, server.paid.total()
    server.rule = lambda call: BUSY if call.digest == unlucky else usual(call)
    with pytest.raises(
        StageUnavailable, match=r"1 of \d+ requests to judge-1 at .* got no answer, the first: server_error: HTTP 503: overl"
    ):
        bench.make(rated, chunk=chunk)
    server.rule = usual
    bench.make(rated, chunk=chunk)
    assert server.paid.total() - paid == ASKED
    assert bench.read(rated, "rewards.jsonl") == expected


def test_a_server_that_is_gone_may_be_asked_another_time(bench, server, rated):
    usual = server.rule
    server.rule = lambda call: BUSY if call.number > 2 else usual(call)
    with pytest.raises(StageUnavailable, match=r"judge-1 at .* does not answer: server_error: HTTP 503: overloaded"):
        bench.make(rated)
    server.rule = usual
    bench.make(rated)
    assert set(server.paid.values()) == {1}


def test_403_is_about_one_request_unless_it_is_the_answer_to_all(bench, server, rated):
    usual = server.rule
    server.rule = lambda call: Sends(403, b"not this one") if call.number == 10 else usual(call)
    assert bench.make(rated, chunk=2).manifest["records"]["set_aside"] == {"response without reward": 1}

    bench.again(rated)
    server.rule = lambda call: Sends(403, b"quota used up") if call.number > ASKED + 6 else usual(call)
    with pytest.raises(StageFailed, match=r"judge-1 at .* refuses all 6 requests: HTTP 403: quota used up; what was"):
        bench.make(rated, chunk=2)


def test_the_same_request_is_made_once_and_has_one_answer_in_all_chunks(bench, server, rated):
    answered = rated.inputs["responses"]
    records = bench.read(answered, "responses.jsonl")
    bench.again(answered)
    bench.put(answered, "responses.jsonl", [{**one, "prompt": "The same to all"} for one in records])
    server.rule = lambda call: Says(f"<rating>{call.number % 10 + 1}</rating>")
    bench.make(rated, chunk=2)
    assert len(server.calls) == 3
    assert len({tuple(record["rewards"]) for record in bench.read(rated, "rewards.jsonl")}) == 1

"""Evolving through a real HTTP server that is interrupted, goes away or refuses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from eva_hpc.cluster.execution import mark_of_progress
from eva_hpc.config.creator import OpenAIEvolver
from eva_hpc.plan.graph import Node
from eva_hpc.stages import evolve
from eva_hpc.stages.contract import Interrupted, StageFailed, StageUnavailable
from tests.benchmarks.judge_server import Act, Call, JudgeServer, Says, Sends, running_judge

BUSY = Sends(503, b"overloaded", (("Retry-After", "0"),))
ASKED = 8 * 2


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    """The same new prompt whenever the same is asked."""
    with running_judge() as server:
        server.rule = lambda call: Says(f"<new_prompt>Task {call.digest[:8]}</new_prompt>")
        yield server


@pytest.fixture
def evolved(server, lab_round) -> Node:
    """The node of prompts evolved by the server: two steps for each of eight prompts."""
    evolver = OpenAIEvolver(model="m", base_url=server.url, concurrency=3, max_new_tokens=50)
    return Node(evolve.Spec(evolver=evolver, evolutions=2, seed=1, round=1), "round 1", lab_round(count=32).rewrites.inputs)


@pytest.mark.parametrize("at", [5, 12])
def test_a_stage_that_is_told_to_stop_keeps_every_answer_and_a_new_attempt_asks_only_for_the_rest(bench, server, evolved, at):
    bench.make(evolved, chunk=3)
    expected = bench.read(evolved, "rewrites.jsonl")
    bench.again(evolved)
    before = len(server.calls)
    attempt = bench.prepare(evolved, chunk=8)
    mark = mark_of_progress(attempt.work)
    with pytest.raises(Interrupted):
        bench.run(attempt, stop=lambda: len(server.calls) - before >= at)
    assert at <= len(server.calls) - before < ASKED
    assert mark_of_progress(attempt.work) != mark

    bench.make(evolved, chunk=8)
    assert len(server.calls) - before == ASKED
    assert bench.read(evolved, "rewrites.jsonl") == expected, "neither the stop nor other chunks change a text"


@pytest.mark.parametrize("lost", [1, 8])
def test_a_server_that_does_not_answer_now_may_be_asked_another_time(bench, server, evolved, lost):
    usual = server.rule

    def busy(call: Call) -> Act:
        is_lost = call.number > 8 if lost == 8 else call.prompt == server.calls[0].prompt
        return BUSY if is_lost else usual(call)

    server.rule = busy
    with pytest.raises(
        StageUnavailable, match=rf"{lost} of 8 requests to m at .* got no answer, the first: server_error: HTTP 503: overloaded"
    ):
        bench.make(evolved)
    server.rule = usual
    assert bench.make(evolved).manifest["records"]["set_aside"] == {}
    assert (len(server.paid), server.paid.total()) == (ASKED, ASKED)


def test_a_server_that_refuses_from_now_on_fails_the_stage_and_what_it_wrote_is_kept(bench, server, evolved):
    usual = server.rule
    server.rule = lambda call: Sends(401, b"no credit left") if call.number > 5 else usual(call)
    with pytest.raises(StageFailed, match=r"m at .* refuses all requests: HTTP 401: no credit left; what was answered is kept"):
        bench.make(evolved)
    server.rule = usual
    bench.make(evolved)
    assert server.paid.total() == ASKED


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refusal_of_one_request_is_a_failed_rewrite_with_the_words_of_the_server(bench, server, evolved, status):
    usual = server.rule
    server.rule = lambda call: Sends(status, b"content filter") if call.number == 4 else usual(call)
    counts = bench.make(evolved).manifest["records"]
    assert counts == {"in": ASKED, "out": ASKED - 1, "set_aside": {"rewrite failed: rejected": 1}}
    assert [one["detail"] for one in bench.read(evolved, "set_aside.jsonl")] == [f"HTTP {status}: content filter"]


def test_answers_differ_by_seed_and_one_seed_has_one_answer(bench, server, evolved):
    from eva_hpc.stages.server import Server

    bench.make(evolved.inputs["selected"])
    settings, context = evolved.spec.evolver, bench.prepare(evolved).context()
    server.rule = lambda call: Says(f"Answer {call.number}")
    hello = [{"role": "user", "content": "Hello"}]
    first, second, again = Server(settings, context).ask([hello] * 3, [1, 2, 1])
    assert first == again != second
    assert Server(settings, context).ask([hello] * 2, [2, 1]) == [second, first]
    assert len(server.calls) == 2

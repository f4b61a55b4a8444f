"""Evolving through a real HTTP server: bad answers are set aside one by one, a server that is no use fails the stage."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from eva_hpc.config.creator import OpenAIEvolver
from eva_hpc.plan.graph import Node
from eva_hpc.stages import evolve
from eva_hpc.stages.contract import StageFailed

KEY = "sk-secret-of-the-test"


class Evolver(ThreadingHTTPServer):
    """An OpenAI-compatible server whose answers are made by `answer(number of the request, its body)`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[dict] = []
        self.keys: set[str | None] = set()
        self.lock = threading.Lock()
        self.answer = lambda number, body: (200, completion(f"<new_prompt>Evolved task {number}</new_prompt>"))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Evolver

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            number = len(self.server.requests)
            self.server.requests.append(body)
            self.server.keys.add(self.headers["Authorization"])
        status, content = self.server.answer(number, body)
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        return


def completion(text: str | None) -> bytes:
    return json.dumps({"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}).encode()


@pytest.fixture
def server() -> Iterator[Evolver]:
    server = Evolver()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def evolved(server, lab_round, monkeypatch):
    """The node of prompts evolved by the server: two steps for each of four prompts."""
    monkeypatch.setenv("TEST_KEY", KEY)
    lab = lab_round(count=16)
    evolver = OpenAIEvolver(model="m", base_url=server.url, api_key_env="TEST_KEY", concurrency=3, max_new_tokens=50)
    spec = evolve.Spec(evolver=evolver, evolutions=2, max_chars=100, max_tokens=None, seed=1, round=1)
    return Node(spec, "round 1", lab.evolved.inputs)


def test_answers_become_prompts_and_each_step_starts_from_the_one_before(bench, server, evolved):
    artifact = bench.make(evolved)
    prompts = {prompt["id"]: prompt for prompt in bench.read(evolved, "prompts.jsonl")}
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
    assert {prompt["depth"] for prompt in bench.read(evolved, "prompts.jsonl")} == {1}
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


def test_the_same_answer_to_all_is_one_prompt_and_the_rest_duplicates(bench, server, evolved):
    server.answer = lambda number, body: (200, completion("<new_prompt>The only idea</new_prompt>"))
    artifact = bench.make(evolved)
    assert artifact.manifest["records"] == {"in": 8, "out": 1, "set_aside": {"duplicate of an evolved prompt": 7}}


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_of_all_requests_fails_the_stage_and_says_why(bench, server, evolved, status):
    server.answer = lambda number, body: (status, b"no such key " + KEY.encode())
    with pytest.raises(
        StageFailed, match=rf"4 of 4 requests to {server.url} failed: rejected: HTTP {status}: no such key \[key\]"
    ):
        bench.make(evolved)


def test_when_no_answer_can_be_used_the_stage_fails_with_the_reasons(bench, server, evolved):
    server.answer = lambda number, body: (400, b"unknown parameter: seed")
    with pytest.raises(StageFailed, match="none of the 8 evolved prompts can be used: 8 rewrite failed: rejected"):
        bench.make(evolved)


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
def test_evolved_prompts_of_too_many_tokens_are_set_aside_and_counted(bench, server, evolved, policy_of, tokenizer_only):
    usual = server.answer
    long = completion(f"<new_prompt>{'日' * 30}</new_prompt>")
    server.answer = lambda number, body: (200, long) if number == 2 else usual(number, body)
    spec = evolved.spec.model_copy(update={"max_tokens": 60})
    node = Node(spec, "round 1", {**evolved.inputs, "policy": policy_of(tokenizer_only)})
    assert bench.make(node).manifest["records"] == {"in": 8, "out": 7, "set_aside": {"too long": 1}}

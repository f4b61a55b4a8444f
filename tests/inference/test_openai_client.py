"""The client against a real HTTP server on the loopback that misbehaves in every way a server can."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from eva_hpc.inference.openai_client import (
    RESERVED,
    ApiFailure,
    ChatRequest,
    Completion,
    RetryPolicy,
    ServerGone,
    ServerRefuses,
    UnusableServer,
    chat,
    text_of,
)
from eva_hpc.training.interrupt import Interrupted
from tests.benchmarks.judge_server import Call, JudgeServer, Says, Sends, running_judge

KEY = "sk-very-secret-key"
QUICK = RetryPolicy(attempts=3, timeout_s=5.0, first_wait_s=0.01, longest_wait_s=2.0)


class Server(ThreadingHTTPServer):
    """Answers by the last message: its first word is what to do, the rest is echoed. Counts attempts per message."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.attempts: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.headers_seen: list[dict[str, str]] = []
        self.times: dict[str, list[float]] = {}
        self.open = 0
        self.most_open = 0
        self.all_open = threading.Barrier(4)
        self.release = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        message = body["messages"][-1]["content"]
        server = self.server
        with server.lock:
            server.attempts[message] += 1
            attempt = server.attempts[message]
            server.bodies.append(body)
            server.headers_seen.append(dict(self.headers))
            server.times.setdefault(message, []).append(time.monotonic())
            server.open += 1
            server.most_open = max(server.most_open, server.open)
        try:
            self.act(message, attempt)
        finally:
            with server.lock:
                server.open -= 1

    def act(self, message: str, attempt: int) -> None:
        what, _, rest = message.partition(" ")
        good = json.dumps({"choices": [{"message": {"content": f"echo {rest}"}, "finish_reason": "stop"}]}).encode()
        assert self.path == "/v1/chat/completions"
        if what == "good" or (what.endswith("-once") and attempt > 1):
            self.answer(200, good)
        elif what == "together":
            self.server.all_open.wait(timeout=20)
            self.answer(200, good)
        elif what.startswith("stall"):
            self.server.release.wait(timeout=20)
        elif what == "trickle":
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            while not self.server.release.wait(timeout=0.05):
                self.wfile.write(b" ")
                self.wfile.flush()
        elif what.startswith("busy"):
            self.answer(429, b"slow down", Retry_After="0.5")
        elif what.startswith("dated"):
            self.answer(503, b"later", Retry_After="Wed, 21 Oct 2015 07:28:00 GMT")
        elif what.startswith("broken"):
            self.answer(500, b"oops")
        elif what.startswith("cut-json"):
            self.answer(200, good[:20])
        elif what.startswith("cut-body"):
            self.send_response(200)
            self.send_header("Content-Length", str(len(good)))
            self.end_headers()
            self.wfile.write(good[:20])
            self.close_connection = True
        elif what.startswith("empty"):
            self.answer(200, json.dumps({"choices": [{"message": {"content": ""}, "finish_reason": "length"}]}).encode())
        elif what == "strange":
            self.answer(200, b'{"choices": []}')
        elif what == "refuse":
            self.answer(401, f"Incorrect API key provided: {self.headers['Authorization']}".encode())


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.release.set()
    server.shutdown()
    server.server_close()


async def complete(
    base_url: str,
    model: str,
    api_key: str | None,
    conversations: Sequence[Sequence[dict[str, str]]],
    *,
    temperature: float,
    max_tokens: int,
    concurrency: int,
    seeds: Sequence[int] | None = None,
    retry: RetryPolicy = RetryPolicy(),
) -> list[str | ApiFailure]:
    """The texts of the answers, in order; one that failed, or has no text, as its failure."""
    parameters = {"temperature": temperature, "max_tokens": max_tokens}
    requests = [
        ChatRequest(messages, parameters if seeds is None else {**parameters, "seed": seeds[index]})
        for index, messages in enumerate(conversations)
    ]
    answers: dict[int, str | ApiFailure] = {}

    def received(index: int, outcome: Completion | ApiFailure) -> None:
        answers[index] = outcome if isinstance(outcome, ApiFailure) else _text_or_failure(outcome)

    try:
        await chat(base_url, model, api_key, requests, received, concurrency=concurrency, retry=retry)
    except (ServerRefuses, ServerGone) as error:
        return [answers.get(index, error.failure) for index in range(len(requests))]
    return [answers[index] for index in range(len(requests))]


def _text_or_failure(completion: Completion) -> str | ApiFailure:
    text = text_of(completion.choice)
    finish = completion.choice.get("finish_reason")
    return text if text.strip() else ApiFailure("empty", f"the completion has no text, finish reason {finish}")


def ask(
    server: Server, messages: list[str], retry: RetryPolicy = QUICK, concurrency: int = 8, **options: Any
) -> list[str | ApiFailure]:
    conversations = [[{"role": "user", "content": message}] for message in messages]
    return asyncio.run(
        complete(
            server.url,
            "tiny",
            options.pop("api_key", KEY),
            conversations,
            temperature=0.5,
            max_tokens=7,
            concurrency=concurrency,
            retry=retry,
            **options,
        )
    )


def test_completions_come_back_in_the_order_of_the_conversations(server: Server) -> None:
    messages = [f"good {i}" for i in range(30)]

    answers = ask(server, messages, seeds=range(100, 130))

    assert answers == [f"echo {i}" for i in range(30)]
    body = next(body for body in server.bodies if body["messages"][-1]["content"] == "good 3")
    assert body == {
        "model": "tiny",
        "messages": [{"role": "user", "content": "good 3"}],
        "temperature": 0.5,
        "max_tokens": 7,
        "seed": 103,
    }
    assert all(headers["Authorization"] == f"Bearer {KEY}" for headers in server.headers_seen)


def test_without_a_key_no_authorization_is_sent(server: Server) -> None:
    assert ask(server, ["good x"], api_key=None) == ["echo x"]
    assert "Authorization" not in server.headers_seen[0]


@pytest.mark.parametrize("trouble", ["broken-once", "cut-json-once", "cut-body-once", "dated-once"])
def test_a_passing_trouble_is_tried_again(server: Server, trouble: str) -> None:
    assert ask(server, [f"{trouble} x"]) == ["echo x"]
    assert server.attempts[f"{trouble} x"] == 2


def test_a_busy_server_is_given_the_time_it_asks_for(server: Server) -> None:
    assert ask(server, ["busy-once x"]) == ["echo x"]
    first, second = server.times["busy-once x"]
    assert second - first >= 0.5


def test_a_stall_is_cut_off_and_tried_again(server: Server) -> None:
    assert ask(server, ["stall-once x"], RetryPolicy(attempts=2, timeout_s=0.3, first_wait_s=0.01)) == ["echo x"]


def test_a_server_that_trickles_bytes_forever_times_out(server: Server) -> None:
    (answer,) = ask(server, ["trickle x"], RetryPolicy(attempts=1, timeout_s=0.3))
    assert isinstance(answer, ApiFailure)
    assert answer.reason == "timeout"


@pytest.mark.parametrize(
    ("message", "reason", "attempts"),
    [
        ("stall x", "timeout", 2),
        ("busy x", "rate_limit", 2),
        ("broken x", "server_error", 2),
        ("cut-json x", "malformed", 2),
        ("cut-body x", "connection", 2),
        ("empty x", "empty", 1),
        ("strange x", "malformed", 1),
        ("refuse x", "rejected", 1),
    ],
)
def test_one_hopeless_item_is_a_failure_with_its_reason_and_spoils_no_other(
    server: Server, message: str, reason: str, attempts: int
) -> None:
    policy = RetryPolicy(attempts=2, timeout_s=0.4, first_wait_s=0.01, longest_wait_s=0.02)

    before, failed, after = ask(server, ["good a", message, "good b"], policy)

    assert (before, after) == ("echo a", "echo b")
    assert isinstance(failed, ApiFailure)
    assert failed.reason == reason
    assert server.attempts[message] == attempts


def test_an_unreachable_server_fails_every_item(server: Server) -> None:
    server.shutdown()
    server.server_close()

    answers = ask(server, ["good a", "good b"], RetryPolicy(attempts=2, timeout_s=1.0, first_wait_s=0.01))

    assert [answer.reason for answer in answers if isinstance(answer, ApiFailure)] == ["connection", "connection"]


def test_the_key_never_shows_even_if_the_server_repeats_it(server: Server) -> None:
    (answer,) = ask(server, ["refuse x"])
    assert isinstance(answer, ApiFailure)
    assert answer.detail == "HTTP 401: Incorrect API key provided: Bearer [key]"
    assert KEY not in repr(answer)


def test_a_key_that_cannot_be_a_header_is_an_error_that_does_not_show_it(server: Server) -> None:
    with pytest.raises(ValueError, match="API key") as error:
        ask(server, ["good x"], api_key=KEY + "\n")
    assert KEY not in str(error.value)


def test_as_many_requests_are_open_as_allowed_and_no_more(server: Server) -> None:
    # The server answers only when four requests are open at the same time.
    answers = ask(server, [f"together {i}" for i in range(12)], concurrency=4)

    assert answers == [f"echo {i}" for i in range(12)]
    assert server.most_open == 4


# ---------------------------------------------------------------------------- chat: any parameters, outcomes one by one


@pytest.fixture
def judge() -> Iterator[JudgeServer]:
    with running_judge() as server:
        yield server


def talk(
    server: JudgeServer, count: int = 1, parameters: dict[str, Any] | None = None, concurrency: int = 2, **options: Any
) -> dict[int, Completion | ApiFailure]:
    """The outcomes, in the order in which they came, of `count` requests "request 0", "request 1", …"""
    outcomes: dict[int, Completion | ApiFailure] = options.pop("outcomes", {})
    requests = [ChatRequest([{"role": "user", "content": f"request {i}"}], parameters or {}) for i in range(count)]
    options.setdefault("received", outcomes.__setitem__)
    options.setdefault("retry", QUICK)
    asyncio.run(chat(server.url, "judge-1", KEY, requests, concurrency=concurrency, **options))
    return outcomes


def failure(server: JudgeServer, count: int = 1) -> ApiFailure:
    """Why the server's answer to one request is none."""
    (outcome,) = talk(server, count).values()
    assert isinstance(outcome, ApiFailure)
    return outcome


def test_parameters_are_sent_as_they_are_and_the_choice_comes_back_as_sent(judge: JudgeServer) -> None:
    judge.rule = lambda call: Says("m", top={"m": -0.1, "M": -2.4}, model="judge-1-0613", finish="length")
    parameters = {"max_completion_tokens": 1, "logprobs": True, "top_logprobs": 5, "seed": 7, "anything": {"of": ["own"]}}

    (completion,) = talk(judge, 1, parameters).values()

    assert judge.calls[0].body == {"model": "judge-1", "messages": [{"role": "user", "content": "request 0"}], **parameters}
    assert isinstance(completion, Completion)
    assert (completion.model, completion.system_fingerprint) == ("judge-1-0613", "fp_1")
    assert completion.usage["prompt_tokens"] == 2
    assert completion.choice["finish_reason"] == "length"
    top = completion.choice["logprobs"]["content"][0]["top_logprobs"]
    assert {entry["token"]: entry["logprob"] for entry in top} == {"m": -0.1, "M": -2.4}


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": "Hi"}, "Hi"),
        ({"content": ""}, ""),
        ({"content": None}, ""),
        ({}, ""),
        ({"content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]}, "Hi"),
    ],
)
def test_a_completion_may_have_no_text(judge: JudgeServer, message: dict[str, Any], text: str) -> None:
    judge.rule = lambda call: Sends(200, json.dumps({"choices": [{"message": message}]}).encode())
    (completion,) = talk(judge).values()
    assert isinstance(completion, Completion)
    assert text_of(completion.choice) == text
    assert (completion.model, completion.system_fingerprint, completion.usage) == ("", None, {})


@pytest.mark.parametrize("name", RESERVED)
def test_what_the_client_fills_in_is_no_parameter(judge: JudgeServer, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        talk(judge, 1, {name: 1})


@pytest.mark.parametrize("url", ["", "localhost:8000/v1", "ftp://host/v1", "http://"])
def test_a_url_that_is_none_is_said_at_once(url: str) -> None:
    with pytest.raises(UnusableServer, match="must be like"):
        asyncio.run(chat(url, "m", None, [], lambda index, outcome: None, concurrency=1))


@pytest.mark.parametrize(
    "refusal",
    [
        Sends(401, b"no such key"),
        Sends(402, b"no money left"),
        Sends(403, b"not for you"),
        Sends(404, b'{"error": {"message": "The model judge-1 does not exist"}}'),
        Sends(429, b'{"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}'),
        Sends(308, b"", (("Location", "https://elsewhere/v1"),)),
        Sends(400, b"Unsupported value: 'temperature' does not support 0 with this model."),
        Sends(422, b'{"detail": [{"loc": ["body", "temperature"], "msg": "Extra inputs are not permitted"}]}'),
        Sends(200, b'{"error": {"code": 401, "message": "no such key"}}'),
    ],
)
def test_a_refusal_that_is_about_all_stops_all_at_once(judge: JudgeServer, refusal: Sends) -> None:
    judge.rule = lambda call: refusal
    with pytest.raises(ServerRefuses):
        talk(judge, 1000, {"temperature": 0})
    assert len(judge.calls) <= 2


def test_a_quota_that_is_used_up_on_the_way_stops_all_and_what_came_is_kept(judge: JudgeServer) -> None:
    judge.rule = lambda call: Says("Hi") if call.number <= 5 else Sends(402, b"no money left")
    outcomes: dict[int, Completion | ApiFailure] = {}
    with pytest.raises(ServerRefuses, match="HTTP 402: no money left"):
        talk(judge, 1000, outcomes=outcomes)
    assert len(outcomes) == 5
    assert len(judge.calls) <= 7


@pytest.mark.parametrize(
    "refusal",
    [
        Sends(400, b"This model's maximum context length is 10 tokens, max_tokens is too large"),
        Sends(403, b"flagged by moderation"),
        Sends(400, b"Unsupported content, max_tokens"),
    ],
)
def test_a_refusal_of_one_request_among_good_ones_stops_no_other(judge: JudgeServer, refusal: Sends) -> None:
    judge.rule = lambda call: refusal if call.number == 3 else Says("Hi")
    outcomes = talk(judge, 9, {"max_tokens": 5}, concurrency=1)
    assert [index for index, outcome in outcomes.items() if isinstance(outcome, ApiFailure)] == [2]
    assert len(judge.calls) == 9


def test_where_the_server_has_answered_before_403_is_about_one_request(judge: JudgeServer) -> None:
    judge.rule = lambda call: Sends(403, b"flagged by moderation") if call.number == 1 else Says("Hi")
    outcomes: dict[int, Completion | ApiFailure] = {}
    requests = [ChatRequest([{"role": "user", "content": f"request {i}"}], {}) for i in range(3)]
    asyncio.run(chat(judge.url, "judge-1", None, requests, outcomes.__setitem__, concurrency=1, proven=True))
    assert [isinstance(outcomes[index], ApiFailure) for index in range(3)] == [True, False, False]


def test_attempts_that_failed_are_told_once_a_minute_without_the_key(
    judge: JudgeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge.rule = lambda call: Sends(500, f"no room for {KEY}".encode()) if call.attempt < 3 else Says("Hi")
    requests = [ChatRequest([{"role": "user", "content": f"request {i}"}], {}) for i in range(4)]

    def told() -> list[str]:
        lines: list[str] = []
        call = chat(
            judge.url, "judge-1", KEY, requests, lambda *_: None, concurrency=2, retry=QUICK, say=lines.append
        )  # fmt: skip
        asyncio.run(call)
        return lines

    line = "attempt {} of 3 at a request failed, trying again: server_error: HTTP 500: no room for [key]"
    assert told() == [line.format(1)]
    judge.asked.clear()
    monkeypatch.setattr("eva_hpc.inference.openai_client._TELL_AGAIN_S", 0.0)
    assert sorted(told()) == [line.format(1)] * 4 + [line.format(2)] * 4


def test_a_first_request_with_too_long_a_prompt_does_not_condemn_the_settings(judge: JudgeServer) -> None:
    judge.rule = lambda call: Sends(400, b"max_tokens=5 is too large: maximum context length is 10 tokens")
    (outcome,) = talk(judge, 1, {"max_tokens": 5}).values()
    assert isinstance(outcome, ApiFailure)
    assert (outcome.reason, outcome.transient) == ("rejected", False)


def test_the_message_of_a_refusal_is_told_without_its_wrapping(judge: JudgeServer) -> None:
    judge.rule = lambda call: Sends(400, b'{"error": {"message": "content filter", "type": "x", "code": 1}}')
    assert failure(judge).detail == "HTTP 400: content filter"


def test_a_server_that_answers_nothing_is_given_up_and_one_answer_starts_the_count_anew(judge: JudgeServer) -> None:
    judge.rule = lambda call: Says("Hi") if call.number in (4, 8) else Sends(500)
    policy = RetryPolicy(attempts=1, give_up_after=4)
    outcomes: dict[int, Completion | ApiFailure] = {}
    with pytest.raises(ServerGone, match="HTTP 500"):
        talk(judge, 1000, concurrency=1, retry=policy, outcomes=outcomes)
    assert len(judge.calls) == 12
    assert len(outcomes) == 12


def test_complete_gives_what_was_not_asked_the_failure_that_stopped_it(judge: JudgeServer) -> None:
    judge.rule = lambda call: Says("Hi") if call.number == 1 else Sends(401, b"expired")
    conversations = [[{"role": "user", "content": "x"}]] * 50
    answers = asyncio.run(complete(judge.url, "m", KEY, conversations, temperature=0, max_tokens=1, concurrency=1))
    assert answers[0] == "Hi"
    assert {answer.detail for answer in answers[1:] if isinstance(answer, ApiFailure)} == {"HTTP 401: expired"}
    assert (len(answers), len(judge.calls)) == (50, 2)


def test_outcomes_come_as_they_arrive_and_a_place_is_used_again_only_after_that(judge: JudgeServer) -> None:
    seen_when_received: list[int] = []
    talk(judge, 5, concurrency=1, received=lambda index, outcome: seen_when_received.append(len(judge.calls)))
    assert seen_when_received == [1, 2, 3, 4, 5]


def test_an_outcome_that_cannot_be_kept_stops_all(judge: JudgeServer) -> None:
    def received(index: int, outcome: Completion | ApiFailure) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        talk(judge, 1000, received=received)
    assert len(judge.calls) <= 2


def test_told_to_stop_no_more_is_sent_and_what_is_in_flight_is_handed_over(judge: JudgeServer) -> None:
    told = False

    def rule(call: Call) -> Says:
        nonlocal told
        told = told or call.number == 2
        return Says("Hi")

    judge.rule = rule
    outcomes: dict[int, Completion | ApiFailure] = {}
    with pytest.raises(Interrupted):
        talk(judge, 1000, outcomes=outcomes, stop=lambda: told)
    assert len(outcomes) == len(judge.calls) <= 3


def test_after_a_refusal_what_is_in_flight_is_still_waited_for(judge: JudgeServer) -> None:
    def rule(call: Call) -> Says | Sends:
        if call.number != 2:
            judge.wait_for_calls(2)
            return Sends(401, b"expired")
        threading.Timer(0.1, judge.release.set).start()
        return Says("late", held=True)

    judge.rule = rule
    outcomes: dict[int, Completion | ApiFailure] = {}
    with pytest.raises(ServerRefuses):
        talk(judge, 1000, outcomes=outcomes, retry=RetryPolicy(drain_s=0.0))
    assert len(judge.calls) <= 3
    assert [outcome.choice["message"]["content"] for outcome in outcomes.values() if isinstance(outcome, Completion)] == [
        "late"
    ]


def test_told_to_stop_when_all_is_there_it_simply_ends(judge: JudgeServer) -> None:
    outcomes: dict[int, Completion | ApiFailure] = {}
    talk(judge, 3, outcomes=outcomes, stop=lambda: len(outcomes) == 3)
    assert len(outcomes) == 3


def test_half_a_surrogate_pair_in_a_prompt_is_the_servers_to_judge(judge: JudgeServer) -> None:
    outcomes: list[Completion | ApiFailure] = []
    request = ChatRequest([{"role": "user", "content": "half \ud83d"}], {})
    asyncio.run(chat(judge.url, "m", None, [request], lambda _, outcome: outcomes.append(outcome), concurrency=1))
    assert isinstance(outcomes[0], Completion)
    assert judge.calls[0].prompt == "half \ud83d"

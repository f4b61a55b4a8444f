"""The client against a real HTTP server on the loopback that misbehaves in every way a server can."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from eva_hpc.inference.openai_client import ApiFailure, RetryPolicy, complete

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


def test_seeds_must_match_the_conversations(server: Server) -> None:
    with pytest.raises(ValueError, match="2 seeds for 1 conversations"):
        ask(server, ["good x"], seeds=[1, 2])

"""A real HTTP judge on the loopback that speaks the OpenAI protocol, misbehaves as told, and counts what it was paid for."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_PATIENCE_S = 30.0


@dataclass(frozen=True)
class Call:
    """A request as it arrived: the `number`-th of all, the `attempt`-th of this body, both from 1."""

    body: Mapping[str, Any]
    digest: str
    number: int
    attempt: int

    @property
    def prompt(self) -> str:
        return self.body["messages"][-1]["content"]


@dataclass(frozen=True)
class Says:
    """A completion, the one thing that is paid for. `top` are the log-probabilities of its first token's alternatives.

    `held` ones are worked on until the server's `release` is set.
    """

    text: str | None
    top: Mapping[str, float] | None = None
    model: str | None = None
    fingerprint: str | None = "fp_1"
    finish: str = "stop"
    held: bool = False


@dataclass(frozen=True)
class Sends:
    """An answer byte by byte; `cut` closes the connection after half of it."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    cut: bool = False


@dataclass(frozen=True)
class Stalls:
    """No answer until the server's `release` is set."""


@dataclass(frozen=True)
class HangsUp:
    """The connection is closed without an answer."""


Act = Says | Sends | Stalls | HangsUp


class JudgeServer(ThreadingHTTPServer):
    """Acts on every request as `rule` says. `paid` counts completions by digest of the request, `asked` all attempts."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.model = "judge-1"
        self.key: str | None = None
        self.rule: Callable[[Call], Act] = lambda call: Says("[[A]]")
        self.paid: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()
        self.calls: list[Call] = []
        self.open = 0
        self.most_open = 0
        self.changed = threading.Condition()
        self.release = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients may be gone, killed by their tests; anything else is worth a traceback."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def wait_for_calls(self, number: int) -> None:
        """Until so many requests have arrived in all."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.calls) >= number, _PATIENCE_S), f"{len(self.calls)} of {number} calls"

    def arrived(self, body: Mapping[str, Any]) -> Call:
        digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        with self.changed:
            self.asked[digest] += 1
            call = Call(body, digest, len(self.calls) + 1, self.asked[digest])
            self.calls.append(call)
            self.open += 1
            self.most_open = max(self.most_open, self.open)
            self.changed.notify_all()
        return call

    def left(self) -> None:
        with self.changed:
            self.open -= 1


@contextmanager
def running_judge() -> Iterator[JudgeServer]:
    """A judge that serves until the end of the block."""
    server = JudgeServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.release.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: JudgeServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        return

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self._json({"object": "list", "data": [{"id": self.server.model, "object": "model"}]})
        else:
            self._send(Sends(404, b'{"error": {"message": "Not Found"}}'))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/chat/completions":
            self._send(Sends(404, b'{"error": {"message": "Not Found"}}'))
            return
        call = self.server.arrived(body)
        try:
            with suppress(ConnectionError):  # the client may be gone, killed by its test
                self._act(call, self.server.rule(call))
        finally:
            self.server.left()

    def _act(self, call: Call, act: Act) -> None:
        if self.server.key is not None and self.headers["Authorization"] != f"Bearer {self.server.key}":
            act = Sends(401, json.dumps({"error": {"message": f"no such key: {self.headers['Authorization']}"}}).encode())
        if isinstance(act, Says):
            with self.server.changed:
                self.server.paid[call.digest] += 1
            if act.held:
                self.server.release.wait(_PATIENCE_S)
            self._json(completion(call, act, self.server.model))
        elif isinstance(act, Sends):
            self._send(act)
        else:
            if isinstance(act, Stalls):
                self.server.release.wait(_PATIENCE_S)
            self.close_connection = True

    def _json(self, value: Any) -> None:
        self._send(Sends(200, json.dumps(value).encode(), (("Content-Type", "application/json"),)))

    def _send(self, act: Sends) -> None:
        self.send_response(act.status)
        for name, value in act.headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(act.body)))
        self.end_headers()
        self.wfile.write(act.body[: len(act.body) // 2] if act.cut else act.body)
        self.close_connection = self.close_connection or act.cut


def completion(call: Call, act: Says, model: str) -> dict[str, Any]:
    """The body of a chat completion, with log-probabilities if they were asked for and are there."""
    text = act.text or ""
    choice: dict[str, Any] = {
        "index": 0,
        "message": {"role": "assistant", "content": act.text},
        "logprobs": None,
        "finish_reason": act.finish,
    }
    if call.body.get("logprobs") and act.top is not None:
        entries = [{"token": token, "logprob": value, "bytes": list(token.encode())} for token, value in act.top.items()]
        first = {"token": text, "logprob": act.top.get(text, -9999.0), "bytes": list(text.encode())}
        choice["logprobs"] = {"content": [{**first, "top_logprobs": entries[: call.body.get("top_logprobs", 0)]}]}
    prompt_tokens = sum(len(message["content"].split()) for message in call.body["messages"])
    return {
        "id": f"chatcmpl-{call.number}",
        "object": "chat.completion",
        "model": act.model or model,
        "system_fingerprint": act.fingerprint,
        "choices": [choice],
        "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": len(text.split()), "total_tokens": 0},
    }

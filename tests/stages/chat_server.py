"""An OpenAI-compatible server on this machine whose answers a test makes."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class ChatServer(ThreadingHTTPServer):
    """Answers with `answer(number of the request, its body)`: the status and the bytes to send."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[dict] = []
        self.keys: set[str | None] = set()
        self.lock = threading.Lock()
        self.answer = lambda number, body: (200, completion(f"<new_prompt>Evolved task {number}</new_prompt>"))

    @property
    def url(self) -> str:
        """What clients are told."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def asked(self, number: int) -> str:
        """The message of a request."""
        return self.requests[number]["messages"][0]["content"]


class _Handler(BaseHTTPRequestHandler):
    server: ChatServer

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
    """The body of a chat completion with this text."""
    return json.dumps({"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}).encode()

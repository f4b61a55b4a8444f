"""A web server on this machine that serves made-up files, and misbehaves on request; and a catalogue of such files."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from eva_hpc.benchmarks.official.data_file import DataFile, StandIn, git_blob, sha256

QUESTIONS, PROMPT, ODDS, ANSWERS, ANCIENT = b"questions " * 1000, b"prompt", b"odds", b"answers " * 10, b"from another time"
STAND_IN = b"nearly odds"
Answer = bytes | int | tuple[str, bytes]
"""A body, an HTTP status without the file, or ("truncated", what of the file is sent before the connection breaks)."""


class FileServer:
    """`answers` by path; of a list each answer is given once, the last one for ever. `asked` are the paths in order."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Answer]] = {
            "/questions": [QUESTIONS],
            "/prompt": [PROMPT],
            "/odds": [ODDS],
            "/answers": [ANSWERS],
            "/ancient": [ANCIENT],
        }
        self.asked: list[str] = []
        self.url = ""

    def next(self, path: str) -> Answer:
        """What to say now."""
        self.asked.append(path)
        answers = self.answers.get(path, [404])
        return answers.pop(0) if len(answers) > 1 else answers[0]


@contextmanager
def serve() -> Iterator[FileServer]:
    """A server on a free port, until the end of the block."""
    files = FileServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = files.next(self.path)
            if isinstance(answer, int):
                self.send_error(answer)
                return
            whole = not isinstance(answer, tuple)
            body = answer if isinstance(answer, bytes) else answer[1]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body) + (0 if whole else 100)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    files.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield files
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def made_up(url: str) -> tuple[DataFile, ...]:
    """A catalogue of two sets."""
    stand_in = StandIn(sha256(STAND_IN), len(STAND_IN), "odds.csv is a stand-in: nearly right")
    return (
        DataFile("quiz", "quiz/questions.json", "questions", f"{url}/questions", "CC0", sha256(QUESTIONS), size=len(QUESTIONS)),
        DataFile("quiz", "quiz/prompt.txt", "prompt", f"{url}/prompt", "CC0", sha256(PROMPT), size=len(PROMPT)),
        DataFile("quiz", "quiz/odds.csv", "odds", f"{url}/odds", "CC0", sha256(ODDS), stand_ins=(stand_in,)),
        DataFile(
            "quiz",
            "quiz/answers/expert.json",
            "answers",
            f"{url}/answers",
            "CC0",
            sha256(ANSWERS),
            size=len(ANSWERS),
            model="expert",
            calibration=True,
        ),
        DataFile("old_quiz", "old_quiz/old.json", "questions", f"{url}/ancient", "CC0", git_blob=git_blob(ANCIENT)),
    )

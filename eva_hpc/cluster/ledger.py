"""The ledger: one appended line per event of an attempt, so that what happened can be read after everything else is gone.

    RESULTS/ledger/launcher.jsonl
    RESULTS/ledger/job-1234_5.jsonl
    {"time": "2026-01-31T12:00:00.123+00:00", "event": "done", "task": "train/5f0c…", "seconds": 6.1}

Every writer has a file of its own: appends of several nodes to one file can be lost on network file systems.
"""

from __future__ import annotations

import os
import threading
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import orjson


class Ledger:
    """The events of a sweep; `writer` names the file that this process appends to."""

    def __init__(self, results: Path, writer: str = "launcher") -> None:
        self._folder = results / "ledger"
        self._path = self._folder / f"{writer}.jsonl"
        self._lock = threading.Lock()
        self._folder.mkdir(parents=True, exist_ok=True)

    def record(self, event: str, **fields: Any) -> None:
        """Append one event, with the time; a line is written whole."""
        line = orjson.dumps(
            {"time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"), "event": event, **fields},
            option=orjson.OPT_APPEND_NEWLINE,
        )
        with self._lock:
            handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                os.write(handle, line)
            finally:
                os.close(handle)

    def events(self) -> list[dict[str, Any]]:
        """All events of all writers in the order of time; a last line that was cut off is left out."""
        events = [
            orjson.loads(line)
            for path in self._folder.glob("*.jsonl")
            for line in path.read_bytes().splitlines(keepends=True)
            if line.endswith(b"\n")
        ]
        return sorted(events, key=lambda event: str(event["time"]))

"""The ledger: one appended line per event of an attempt, so that what happened can be read after everything else is gone.

{"time": "2026-01-31T12:00:00+00:00", "event": "done", "task": "train/5f0c…", "runs": 5, "seconds": 6.1}
"""

from __future__ import annotations

import os
import threading
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import orjson


class Ledger:
    """Appends events to a JSONL file; a line is written whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)

    def record(self, event: str, **fields: Any) -> None:
        """Append one event, with the time."""
        line = orjson.dumps(
            {"time": datetime.now(timezone.utc).isoformat(timespec="seconds"), "event": event, **fields},
            option=orjson.OPT_APPEND_NEWLINE,
        )
        with self._lock:
            handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                os.write(handle, line)
            finally:
                os.close(handle)

    def events(self) -> list[dict[str, Any]]:
        """All events so far; a last line that was cut off is left out."""
        if not self._path.exists():
            return []
        return [orjson.loads(line) for line in self._path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]

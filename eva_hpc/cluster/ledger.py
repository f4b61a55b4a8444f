"""The ledger: one appended line per event of an attempt, so that what happened can be read after everything else is gone.

    RESULTS/ledger/launcher-login1-4711.jsonl
    RESULTS/ledger/job-1234_5.jsonl
    {"time": "2026-01-31T12:00:00.123+00:00", "event": "done", "task": "train/5f0c…", "seconds": 6.1}

Every writer has a file of its own: appends of several nodes to one file can be lost on network file systems.
"""

from __future__ import annotations

import errno
import os
import platform
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import orjson


@dataclass(frozen=True)
class SubmittedJob:
    """A job that sbatch took: its tasks by id, what it allocates, the token and name of its array, its canary's token.

    A controller that dies right after taking a job may forget it and give its id to another: the name tells them apart.
    """

    id: str
    name: str
    array: str
    tasks: tuple[str, ...]
    shape: dict[str, Any]
    token: str
    job_name: str
    canary: str | None
    time: str


class Ledger:
    """The events of a sweep; `writer` names the file that this process appends to, without it one of its own."""

    def __init__(self, results: Path, writer: str = "") -> None:
        self._folder = results / "ledger"
        self._path = self._folder / f"{writer or f'launcher-{platform.node()}-{os.getpid()}'}.jsonl"
        self._lock = threading.Lock()
        self._known: dict[str, tuple[int, list[dict[str, Any]]]] = {}
        self._folder.mkdir(parents=True, exist_ok=True)

    def record(self, event: str, **fields: Any) -> dict[str, Any]:
        """Append one event, with the time; returns it. If a full disk or a crash cuts the line short, only this one is lost."""
        written = {"time": datetime.now(timezone.utc).isoformat(timespec="microseconds"), "event": event, **fields}
        line = orjson.dumps(written, option=orjson.OPT_APPEND_NEWLINE)
        with self._lock:
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                size = os.fstat(handle).st_size
                torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
                line = b"\n" * torn + line
                if os.write(handle, line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
            finally:
                os.close(handle)
        return written

    def events(self) -> list[dict[str, Any]]:
        """All events of all writers in the order of time; lines that were cut off are left out."""
        return self._of(lambda name: True)

    def of_launchers(self) -> list[dict[str, Any]]:
        """The events of all launchers and of this writer, in the order of time.

        What a driver has to know, without a look at the files of thousands of other jobs.
        """
        return self._of(lambda name: name.startswith("launcher-") or name == self._path.name)

    def own(self) -> list[dict[str, Any]]:
        """The events of this writer, in the order written."""
        return self._of(lambda name: name == self._path.name)

    def _of(self, wanted: Callable[[str], bool]) -> list[dict[str, Any]]:
        with os.scandir(self._folder) as entries:
            sizes = {
                entry.name: entry.stat().st_size for entry in entries if entry.name.endswith(".jsonl") and wanted(entry.name)
            }
        events = [event for name, size in sizes.items() for event in self._read(name, size)]
        return sorted(events, key=lambda event: str(event["time"]))

    def _read(self, name: str, size: int) -> list[dict[str, Any]]:
        """The events in a file, of which only what is new since the last look is read."""
        offset, events = self._known.setdefault(name, (0, []))
        if size > offset:
            with open(self._folder / name, "rb") as file:
                file.seek(offset)
                new = file.read()
            whole = new[: new.rfind(b"\n") + 1]
            for line in whole.splitlines():
                with suppress(orjson.JSONDecodeError):
                    events.append(orjson.loads(line))
            self._known[name] = (offset + len(whole), events)
        return events

    def jobs(self) -> dict[str, SubmittedJob]:
        """All jobs that sbatch took, by id ("12_3", or "12" for an array of one), oldest first."""
        return jobs_in(self.events())


def jobs_in(events: Iterable[Mapping[str, Any]]) -> dict[str, SubmittedJob]:
    """The jobs that the events of a ledger tell of; see :meth:`Ledger.jobs`."""
    events = list(events)
    # First all that was asked: the answer may be another launcher's, whose clock is behind.
    asked = {event["token"]: event for event in events if event["event"] == "submitting"}
    jobs: dict[str, SubmittedJob] = {}
    for event in events:
        if event["event"] == "submitted" and event["token"] in asked:
            array = asked[event["token"]]
            for index, job in enumerate(array["jobs"]):
                name = f"{event['job']}_{index}" if event["count"] > 1 else event["job"]
                jobs[name] = SubmittedJob(
                    id=name,
                    name=job["name"],
                    array=array["array"],
                    tasks=tuple(job["tasks"]),
                    shape=array["shape"],
                    token=event["token"],
                    job_name=array.get("job_name", ""),
                    canary=array.get("canary"),
                    time=event["time"],
                )
    return jobs

"""Completions that were paid for, on disk, found by what was asked: append-only JSON lines, one file per writer.

FOLDER/WRITER.jsonl    {"key":"5f2c…","model":"gpt-4.1","parameters":{…},"repeat":0,"messages_sha256":"…","served_model":…,
                        "system_fingerprint":…,"usage":{…},"choice":{…},"time":1767225600.0}

Several processes, on several machines with a shared file system, may read and write at once: a file has one writer, a record
is one line, and nothing is ever changed, so that no lock is needed. A record is on disk before :meth:`CompletionCache.add`
returns. Only answers are kept, never failures. A line ``{"key":"5f2c…","forgotten":1767225600.0}`` says that what is known of
the key up to then counts no more.

How big it gets: about 1 kB for a judgment of AlpacaEval (five log-probabilities), 1.5 kB for one of MT-Bench, 3 kB for one of
Arena-Hard (mostly the judge's text); 4 MB for a model on all three. Looking something up reads all files once, 1 GB in a second
where the disk is as fast, and parses only the lines that are asked for: memory goes with the answer, not with the cache.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eva_hpc.inference.engine import Message
from eva_hpc.store.artifacts import sync

_BEGIN = b'{"key":"'
_FORGOTTEN = re.compile(rb'\{"key":"[0-9a-f]{64}","forgotten":([0-9.]+)\}\n')
_KEY = slice(len(_BEGIN), len(_BEGIN) + 64)


@dataclass(frozen=True)
class Record:
    """A completion and what it answers. `time` is when it arrived, in seconds since 1970; `choice` is as the server sent it.

    The messages are not kept, only their SHA-256: they are long, and whoever asked has them.
    """

    key: str
    model: str
    parameters: Mapping[str, Any]
    repeat: int
    messages_sha256: str
    served_model: str
    system_fingerprint: str | None
    usage: Mapping[str, Any]
    choice: Mapping[str, Any]
    time: float


def completion_key(model: str, messages: Sequence[Message], parameters: Mapping[str, Any], repeat: int) -> str:
    """64 hex digits of what decides a completion: never where it is asked, by whose key or how fast."""
    return json_sha256({"model": model, "messages": list(messages), "parameters": dict(parameters), "repeat": repeat})


def json_sha256(value: Any) -> str:
    """SHA-256 of a JSON value, whatever the order of its keys; 0.0 is 0, as in RFC 8785."""
    text = json.dumps(_canonical(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _canonical(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _canonical(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


class CompletionCache:
    """The records below a folder, and a file of one's own for new ones.

    Args:
        folder: is made when the first record is added.
        writer: name of the file. No two live processes may have the same; by default host and process id.

    Attributes:
        damaged: lines that the last :meth:`find` could not use. A process that dies while it writes leaves such a line.
    """

    def __init__(self, folder: Path, writer: str | None = None) -> None:
        self.folder = folder
        self.path = folder / f"{writer or f'{socket.gethostname()}-{os.getpid()}'}.jsonl"
        self.damaged = 0

    def find(self, keys: Collection[str]) -> dict[str, Record]:
        """The records of those keys that are there and not forgotten. Of several with one key, the one that arrived first."""
        self.damaged = 0
        wanted = {key.encode() for key in keys}
        found: dict[str, list[Record]] = {}
        forgotten: dict[str, float] = {}
        for path in sorted(self.folder.glob("*.jsonl")) if wanted else []:
            with path.open("rb") as file:
                for line in file:
                    if not line.endswith(b"\n"):
                        break  # half a line at the end: it is being written, or its writer died
                    if not (line.startswith(_BEGIN) and line.endswith(b"}\n")):
                        self.damaged += 1
                    elif line[_KEY] in wanted:
                        self._keep(line, found, forgotten)
        earliest = (min(records, key=lambda record: record.time) for records in found.values())
        if forgotten:
            known = ([one for one in records if one.time > forgotten.get(one.key, 0.0)] for records in found.values())
            earliest = (min(records, key=lambda record: record.time) for records in known if records)
        return {record.key: record for record in earliest}

    def _keep(self, line: bytes, found: dict[str, list[Record]], forgotten: dict[str, float]) -> None:
        if (mark := _FORGOTTEN.fullmatch(line)) is not None:
            key = line[_KEY].decode()
            forgotten[key] = max(forgotten.get(key, 0.0), float(mark[1]))
        elif (record := _parse(line)) is not None:
            found.setdefault(record.key, []).append(record)
        else:
            self.damaged += 1

    def add(self, record: Record) -> None:
        """Write a record; it is on disk when this returns.

        Raises:
            OSError: it is not, e.g. the disk is full. What is there stays readable.
        """
        # Escaped to ASCII: no character in it, not even half a surrogate pair, can break the line or fail to be written.
        self._write(json.dumps(vars(record), separators=(",", ":")).encode() + b"\n")

    def forget(self, keys: Iterable[str]) -> None:
        """Let these keys be asked again: what is known of them is of no use. The records stay in their files."""
        for key in keys:
            self._write(b'{"key":"%s","forgotten":%.6f}\n' % (key.encode(), time.time()))

    def _write(self, line: bytes) -> None:
        new = not self.path.exists()
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+", buffering=0) as file:
            # What a process left half-written when it died stays on a line of its own.
            if file.tell() > 0:
                file.seek(-1, os.SEEK_END)
                line = line if file.read(1) == b"\n" else b"\n" + line
            while line:
                line = line[file.write(line) :]
            os.fsync(file.fileno())
        if new:
            sync(self.folder)


def _parse(line: bytes) -> Record | None:
    """The record of a line; None if something in it was overwritten."""
    try:
        record = Record(**json.loads(line))
        whole = (
            record.key.encode() == line[_KEY]
            and isinstance(record.choice["message"], dict)
            and isinstance(record.usage, dict)
            and isinstance(record.served_model, str)
            and isinstance(record.system_fingerprint, str | None)
            and isinstance(record.time, float | int)
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return record if whole else None

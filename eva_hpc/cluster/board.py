"""The state of every task of a plan as one sees it now: what the live display shows and the final summary counts."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import orjson

from eva_hpc.plan.plan import Plan, Task


class State(Enum):
    """Where a task is."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    REUSED = "reused"
    UNNEEDED = "unneeded"
    FAILED = "failed"
    BLOCKED = "blocked"


@dataclass
class Entry:
    """State of a task, since when, and why it failed."""

    state: State
    started: float | None = None
    seconds: float = 0.0
    reason: str = ""
    log: Path | None = None
    work: Path | None = None

    def progress(self) -> float:
        """Share done, in [0, 1], from what its ranks report."""
        if self.work is None:
            return 0.0
        shares = []
        for path in self.work.glob("progress-*.json"):
            try:
                done, total = orjson.loads(path.read_bytes())
            except (OSError, orjson.JSONDecodeError):
                continue
            shares.append(done / total if total else 1.0)
        return sum(shares) / len(shares) if shares else 0.0


@dataclass
class Board:
    """States of all tasks; safe to change from several threads. `note` is a word on what is waited for."""

    plan: Plan
    entries: dict[str, Entry] = field(default_factory=dict)
    expected: dict[str, float] = field(default_factory=dict)
    note: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        for task in self.plan.tasks:
            self.entries.setdefault(task.id, Entry(State.PENDING))

    def started(self, task: Task, log: Path, work: Path) -> None:
        """A task began."""
        with self._lock:
            self.entries[task.id] = Entry(State.RUNNING, started=time.monotonic(), log=log, work=work)

    def finished(self, task: Task, seconds: float) -> None:
        """A task is committed; it took so many seconds."""
        with self._lock:
            entry = self.entries[task.id]
            entry.state, entry.seconds = State.DONE, seconds

    def failed(self, task: Task, reason: str) -> None:
        """A task failed; what needs it is blocked."""
        with self._lock:
            entry = self.entries[task.id]
            entry.state, entry.reason = State.FAILED, reason
            dead = [task]
            while dead:
                for child in self.plan.children(dead.pop()):
                    if self.entries[child.id].state is State.PENDING:
                        self.entries[child.id].state = State.BLOCKED
                        dead.append(child)

    def set(self, task: Task, state: State) -> None:
        """Put a task into a state without timing it."""
        with self._lock:
            self.entries[task.id].state = state

    def count(self, *states: State) -> int:
        """How many tasks are in one of the states."""
        with self._lock:
            return sum(entry.state in states for entry in self.entries.values())

    def in_state(self, *states: State) -> list[Task]:
        """The tasks in one of the states, in the order of the plan."""
        with self._lock:
            return [task for task in self.plan.tasks if self.entries[task.id].state in states]

    def seconds_left(self, slots: int, width: Callable[[Task], int]) -> float | None:
        """Estimated seconds until all is done; None before enough is known.

        A stage takes what tasks of its kind took on average, so far or, if none has ended yet, in earlier sweeps.

        Args:
            slots: how much can be at work at once.
            width: how many slots a task takes.
        """
        with self._lock:
            known: dict[str, list[float]] = defaultdict(list)
            for task in self.plan.tasks:
                if self.entries[task.id].state is State.DONE:
                    known[task.stage].append(self.entries[task.id].seconds)
            means = {**self.expected, **{stage: sum(values) / len(values) for stage, values in known.items()}}
            pending = [task for task in self.plan.tasks if self.entries[task.id].state is State.PENDING]
            if sum(task.stage in means for task in pending) < len(pending) / 2 or not means:
                return None
            fallback = sum(means.values()) / len(means)
            left = 0.0
            for task in self.plan.tasks:
                entry = self.entries[task.id]
                seconds = means.get(task.stage, fallback) * width(task)
                if entry.state is State.PENDING:
                    left += seconds
                elif entry.state is State.RUNNING and entry.started is not None:
                    left += max(0.0, seconds * (1 - entry.progress()))
            return left / slots

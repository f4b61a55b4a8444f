"""The attempts of a sweep's jobs, put together from what their drivers and Slurm's accounting said, and the stages in each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from eva_hpc.cluster.ledger import SubmittedJob

Event = Mapping[str, Any]
Outcome = Literal["committed", "saved", "wasted", "waiting"]
_OUTCOMES: dict[str, Outcome] = {
    "done": "committed",
    "requeued": "saved",
    "ended": "saved",
    "stopped": "saved",
    "retried": "wasted",
    "failed": "wasted",
}


@dataclass
class Attempt:
    """One attempt of a job: what its driver said, and what Slurm's accounting says of it. On this machine, of one stage."""

    job: str
    events: list[Event] = field(default_factory=list)
    record: Event | None = None

    def width(self, job: SubmittedJob | None, on_gpus: bool) -> float:
        """GPUs or CPU cores that it held."""
        if not self.job:
            done = next((event for event in self.events if event["event"] == "done"), {})
            return float(done.get("gpus", 0) if on_gpus else done.get("processes", 1))
        if on_gpus and self.record is not None and self.record.get("gpu_seconds") is not None:
            elapsed = self.record["elapsed_s"]
            return float(self.record["gpu_seconds"] / elapsed) if elapsed else 0.0
        shape = job.shape if job is not None else {}
        return float(shape.get("nodes", 1) * shape.get("gpus_per_node" if on_gpus else "cpus_per_node", 0 if on_gpus else 1))

    def steps(self) -> list[tuple[str, Outcome, float]]:
        """Task, outcome and seconds of each stage it was at; last, without a task, what is left of the attempt."""
        steps: list[tuple[str, Outcome, float]] = []
        first = last = open_since = _seconds(self.events[0]) if self.events else 0.0
        open_task = ""
        for event in self.events:
            last = _seconds(event)
            if event["event"] == "started":
                open_task, open_since = event["task"], last
            elif open_task and event["event"] in _OUTCOMES and event.get("task", open_task) == open_task:
                steps.append((open_task, _OUTCOMES[event["event"]], last - open_since))
                open_task = ""
        used = sum(seconds for _, _, seconds in steps)
        elapsed = float(self.record["elapsed_s"]) if self.record is not None else last - first
        if open_task and self.record is not None:  # killed in the middle: all the time from its start on
            before = open_since - first - used
            steps.append((open_task, "wasted", max(0.0, elapsed - used - before)))
            used += steps[-1][2]
        if used > elapsed:  # clocks of two machines
            steps = [(task, outcome, seconds * elapsed / used) for task, outcome, seconds in steps]
        outcomes = {outcome for _, outcome, _ in steps}
        # One that did nothing had perhaps nothing to do, or waited for another job: only Slurm can tell that it failed.
        failed = self.record is not None and self.record["state"] not in ("COMPLETED", "UNKNOWN")
        fruitless = outcomes == {"wasted"} or (not outcomes and failed)
        return [*steps, ("", "wasted" if fruitless else "waiting", max(0.0, elapsed - used))]


def attempts_in(events: Iterable[Event]) -> list[Attempt]:
    """The attempts of all jobs, oldest first; the events of a task without a job, on this machine, are as one attempt each."""
    attempts: dict[tuple[str, Any], Attempt] = {}
    restart: dict[str, int] = defaultdict(int)
    tries: dict[str, int] = defaultdict(int)

    def attempt(job: str, number: Any) -> Attempt:
        return attempts.setdefault((job, number), Attempt(job))

    for event in events:
        kind, job = event["event"], event.get("job", "")
        if kind == "attempt":
            found = attempt(job, event["attempt"])
            # Accounting knows better than the ledger; of two of a kind the later one.
            if found.record is None or (found.record["source"], event["source"]) != ("sacct", "ledger"):
                found.record = event
        elif kind in _OUTCOMES or kind in ("begun", "started"):
            if job:
                restart[job] = int(event.get("restart") or restart[job])
                attempt(job, restart[job]).events.append(event)
            elif "task" in event:
                tries[event["task"]] += kind == "started"
                attempt("", (event["task"], tries[event["task"]])).events.append(event)
    return list(attempts.values())


def _seconds(event: Event) -> float:
    return datetime.fromisoformat(event["time"]).timestamp()

"""What jobs cost: one line in the ledger for each attempt of a job that has ended, by accounting or else by its drivers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from eva_hpc.cluster import queue
from eva_hpc.cluster.blame import blame, blameworthy
from eva_hpc.cluster.causes import Cause, cause_of_state
from eva_hpc.cluster.ledger import Ledger, SubmittedJob

_LAG_LOOKS = 5
"""How often accounting is asked for a job that it does not know yet."""


class Books:
    """The jobs that have ended and whose price is not in the ledger yet."""

    def __init__(self, results: Path, ledger: Ledger) -> None:
        self.results = results
        self.ledger = ledger
        self.open: dict[str, int] = {}

    def add(self, jobs: Iterable[str]) -> None:
        """Jobs that have ended."""
        self.open |= dict.fromkeys(jobs, 0)

    def ask(
        self, jobs: Mapping[str, SubmittedJob], told: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> dict[str, list[queue.Attempt]]:
        """Ask accounting once for all open jobs and enter what it knows; returns its answer, ended attempts only.

        Args:
            jobs: by id.
            told: what the drivers of each job wrote.
        """
        if not self.open:
            return {}
        try:
            answer = queue.sacct(self.open)
        except queue.QueueError:
            answer = {}
        known: dict[str, list[queue.Attempt]] = {}
        for job, looks in list(self.open.items()):
            rows = [row for row in (answer or {}).get(job, []) if row.end is not None and row.name == jobs[job].job_name]
            if rows:
                known[job] = rows
            if rows or answer is None or looks >= _LAG_LOOKS:
                del self.open[job]
                self._enter(jobs[job], rows, told.get(job, ()))
            else:
                self.open[job] += 1
        return known

    def _enter(self, job: SubmittedJob, rows: Sequence[queue.Attempt], told: Sequence[Mapping[str, Any]]) -> None:
        begun = [index for index, event in enumerate(told) if event["event"] == "begun"]
        for number in range(max(len(rows), len(begun))):
            start, end = begun[number : number + 1], begun[number + 1 : number + 2]
            words = told[start[0] : end[0] if end else None] if start else []
            cause = _cause(words)
            if number < len(rows):
                row = rows[number]
                if cause is None and row.state != "COMPLETED":
                    cause = cause_of_state(row)
                seconds, gpus, nodes = float(row.elapsed_s), row.gpus, _hostnames(row.nodes)
                fields = {"state": row.state, "exit": row.exit[0], "source": "sacct"}
            else:
                seconds, gpus = _seconds(words), int(job.shape["nodes"]) * int(job.shape["gpus_per_node"])
                nodes = _hostnames(str(words[0]["nodes"]))
                fields = {"state": "UNKNOWN", "exit": None, "source": "ledger"}
            if cause is Cause.NODE_FAILURE:
                blame(self.results, blameworthy(nodes, _down(nodes) if len(nodes) > 1 else []), job.id, number)
            fields |= {"nodes": nodes, "elapsed_s": seconds, "gpus": gpus, "gpu_seconds": seconds * gpus, "cause": cause}
            self.ledger.record("attempt", job=job.id, name=job.name, attempt=number, **fields)


def _cause(words: Sequence[Mapping[str, Any]]) -> Cause | None:
    """Why an attempt ended before its work was done, in the words of its driver."""
    for event in reversed(words):
        if event["event"] in ("requeued", "failed", "retried"):
            return Cause(event["cause"])
        if event["event"] != "ended":
            return None
    return None


def _seconds(events: Iterable[Mapping[str, Any]]) -> float:
    times = [datetime.fromisoformat(event["time"]) for event in events]
    return round((max(times) - min(times)).total_seconds(), 3)


def _hostnames(nodes: str) -> list[str]:
    try:
        return queue.hostnames(nodes) if nodes and "None" not in nodes else []
    except queue.QueueError:
        return [nodes]


def _down(nodes: Sequence[str]) -> list[str]:
    try:
        return queue.down_nodes(",".join(nodes))
    except queue.QueueError:
        return []

"""Where the jobs of a sweep are, from its ledger and from at most one squeue and one sacct."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from eva_hpc.cluster import queue
from eva_hpc.cluster.causes import Cause, cause_of_state
from eva_hpc.cluster.history import History
from eva_hpc.cluster.reasons import Reason, explain_reason

_PATIENCE_S = 15.0
"""Somebody waits at the screen."""


class Phase(str, Enum):
    """Where a job is."""

    RUNNING = "running"
    WAITING = "waiting"
    HELD = "held"
    ENDED = "ended"


@dataclass(frozen=True)
class Wait:
    """How many jobs wait for a reason, and when Slurm expects to start the first."""

    reason: Reason
    jobs: int
    start: datetime | None = None


class JobStates:
    """The jobs that have tasks left to do; `notes` say what Slurm did not."""

    def __init__(self, past: History, jobs: Collection[str]) -> None:
        self.past = past
        self.notes: list[str] = []
        self.answered = True
        self._entries: dict[str, queue.QueueEntry] = {}
        self._accounts: dict[str, list[queue.Attempt]] = {}
        self._phases: dict[str, tuple[Phase, str]] = {}
        if past.unanswered:
            lost = f"{len(past.unanswered)} submissions" if len(past.unanswered) > 1 else "a submission"
            self.notes.append(f"{lost} not answered by Slurm yet: the sweep command finds out what became of it")
        try:
            self._entries = queue.squeue(jobs, timeout_s=_PATIENCE_S)
        except queue.QueueError as error:
            self.answered = False
            self.notes.append(f"Slurm does not answer; this is what the files say ({error})")
            return
        self._account(self.gone(jobs))

    def gone(self, jobs: Collection[str]) -> set[str]:
        """Those of the jobs that Slurm has no more, or only as ended."""
        active = {job for job, entry in self._entries.items() if entry.active}
        return set(jobs) - active if self.answered else set()

    def _account(self, gone: Collection[str]) -> None:
        unexplained = {job for job in gone if self.past.job.get(job, {}).get("event") != "failed"}
        costly = {job.id for job in self.past.jobs.values() if job.shape.get("gpus_per_node")}
        active = self._entries.keys()
        try:
            accounts = queue.sacct(
                {job for job in unexplained | costly if job in active or job not in self.past.attempts}, _PATIENCE_S
            )
        except queue.QueueError as error:
            self.notes.append(f"Slurm's accounting does not answer ({error})")
            return
        if accounts is None and costly:
            self.notes.append("no accounting here: GPU hours are those of stages that were done")
        self._accounts = accounts or {}

    def phase(self, job: str) -> Phase:
        """Where a job is."""
        return self._found(job)[0]

    def why(self, job: str) -> str:
        """Why a job waits, or how sure it is that it runs."""
        return self._found(job)[1]

    def _found(self, job: str) -> tuple[Phase, str]:
        if job not in self._phases:
            self._phases[job] = self._find(job)
        return self._phases[job]

    def _find(self, job: str) -> tuple[Phase, str]:
        entry = self._entries.get(job)
        said = self.past.job.get(job, {}).get("event")
        if entry is not None and entry.active:
            if entry.state == "PENDING":
                reason = explain_reason(entry.reason)
                return (Phase.HELD if reason.is_stuck else Phase.WAITING), f"{reason.meaning} ({reason.code})"
            if entry.state in ("REQUEUE_HOLD", "SPECIAL_EXIT"):
                return Phase.HELD, f"Slurm holds it ({entry.state})"
            if entry.state.startswith("REQUEUE"):
                return Phase.WAITING, "it goes back into the queue"
            return (Phase.ENDED if said == "failed" else Phase.RUNNING), ""
        if self.answered or said == "failed" or job in self.past.cancelled:
            return Phase.ENDED, ""
        if said in (None, "requeued", "ended"):
            return Phase.WAITING, "in the queue when last heard of"
        return Phase.RUNNING, "when last heard of"

    def is_cancelled(self, job: str) -> bool:
        """Whether somebody cancelled a job that has ended."""
        if attempts := self._accounts.get(job):
            return attempts[-1].state == "CANCELLED" and cause_of_state(attempts[-1]) is Cause.CANCELLED
        recorded = self.past.attempts.get(job)
        return job in self.past.cancelled or bool(recorded and recorded[max(recorded)].get("cause") == Cause.CANCELLED.value)

    def end(self, job: str) -> tuple[str, str]:
        """Cause and evidence of the end of a job that left no word itself."""
        if attempts := self._accounts.get(job):
            last = attempts[-1]
            return cause_of_state(last).value, f"job {job} ended as {last.state} on {last.nodes} after {last.elapsed_s} s"
        if recorded := self.past.attempts.get(job):
            event = recorded[max(recorded)]
            return event.get("cause") or Cause.LOST.value, f"job {job} ended as {event['state']} on {event.get('nodes')}"
        return Cause.LOST.value, f"job {job} is not in the queue any more and left no word"

    def waits(self) -> tuple[Wait, ...]:
        """What jobs wait for; first what nobody need wait for."""
        groups: dict[str, list[queue.QueueEntry]] = defaultdict(list)
        for entry in self._entries.values():
            if entry.state == "PENDING":
                groups[entry.reason].append(entry)
        waits = [
            Wait(explain_reason(reason), len(some), min((one.start for one in some if one.start), default=None))
            for reason, some in groups.items()
        ]
        return tuple(sorted(waits, key=lambda wait: (not wait.reason.is_stuck, -wait.jobs)))

    def gpu_hours(self) -> float:
        """Of all attempts: from accounting, else as recorded in the ledger, else of the stages that were done."""
        hours = 0.0
        for job in self.past.jobs.keys() | self.past.attempts.keys():
            if attempts := self._accounts.get(job):
                hours += sum(attempt.gpu_hours for attempt in attempts)
            elif recorded := self.past.attempts.get(job):
                hours += sum(event.get("gpu_seconds") or 0.0 for event in recorded.values()) / 3600
            else:
                hours += self.past.gpu_seconds[job] / 3600
        return hours

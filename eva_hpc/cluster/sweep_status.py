"""How far a sweep is, from its files first and then from at most one squeue and one sacct; starts and writes nothing.

What is done the store says; what was tried and how it ended, the ledger; what runs or waits now, Slurm, if it answers.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from enum import Enum
from functools import cached_property
from pathlib import Path

from eva_hpc.cluster.causes import Cause
from eva_hpc.cluster.execution import log_path
from eva_hpc.cluster.history import History, history_of
from eva_hpc.cluster.job_states import JobStates, Phase, Wait
from eva_hpc.cluster.ledger import Ledger
from eva_hpc.cluster.owners import is_alive
from eva_hpc.config.sweep import Value
from eva_hpc.plan.index import Index, IndexedRun, read_index
from eva_hpc.plan.plan import Task, without_garbage_collection
from eva_hpc.store.artifacts import CLAIM, MANIFEST, WORK, Store
from eva_hpc.store.keys import Identity, containing


class RunState(str, Enum):
    """Where a run is."""

    FAILED = "failed"
    HELD = "held"
    CANCELLED = "cancelled"
    RUNNING = "running"
    WAITING = "waiting"
    OPEN = "not submitted"
    DONE = "done"


@dataclass(frozen=True)
class RunStatus:
    """A run: how many of its stages are done, the task it is at since when, its jobs, why it is not further."""

    name: str
    point: dict[str, Value]
    seed: int
    state: RunState
    done: int
    stages: int
    task: str | None = None
    part: str = ""
    since: str | None = None
    jobs: tuple[str, ...] = ()
    why: str = ""


@dataclass(frozen=True)
class SharedWork:
    """Work of several runs that is at hand: a job, or on this machine a task."""

    name: str
    job: str | None
    phase: Phase
    task: str | None
    part: str
    since: str | None
    why: str


@dataclass(frozen=True)
class Failure:
    """A task that failed and is not done: whose it is, why, what shows it, and what happens next.

    `pending` says that it is being tried again already.
    """

    task: str
    part: str
    runs: tuple[str, ...]
    cause: str
    evidence: str
    log: Path
    job: str | None
    next: str
    pending: bool


@dataclass(frozen=True)
class SweepStatus:
    """A sweep at one moment. `seconds_left` is the work that is left, divided by the jobs that are at work now."""

    name: str
    results: Path
    time: datetime
    runs: tuple[RunStatus, ...]
    shared: tuple[SharedWork, ...]
    stages_done: int
    stages: int
    gpu_hours: float
    seconds_left: float | None
    waits: tuple[Wait, ...]
    failures: tuple[Failure, ...]
    retries: dict[str, int]
    requeues: int
    bad_nodes: tuple[str, ...]
    notes: tuple[str, ...]

    @cached_property
    def counts(self) -> Counter[RunState]:
        """Runs by state."""
        return Counter(run.state for run in self.runs)

    @property
    def active(self) -> bool:
        """Whether something runs or waits, so that a later look may show more."""
        return bool(self.counts[RunState.RUNNING] or self.counts[RunState.WAITING] or self.shared)


def status_of(results: Path) -> SweepStatus | None:
    """The state of the sweep that has its results there; None if it was never launched."""
    with without_garbage_collection():
        index = read_index(results)
        return _Look(results, index).status() if index is not None else None


class _Look:
    """One look at a sweep: first at its files, then at Slurm."""

    def __init__(self, results: Path, index: Index) -> None:
        self.results = results
        self.index = index
        self.past: History = history_of(Ledger(results).events())
        self.committed = _Committed(Store(results.parent / "store"), self.past)
        ids = index.tasks
        self.finished = {run.name for run in index.runs if all(self.committed.has(ids[number]) for number in run.ends)}
        self.left: dict[str, list[int]] = {}
        for run in index.runs:
            if run.name not in self.finished:
                self.left[run.name] = [number for number in run.tasks if not self.committed.has(ids[number])]
        undone = dict.fromkeys(number for left in self.left.values() for number in left)
        self.owner = {number: job for number in undone if (job := self.past.owner.get(ids[number]))}
        jobs = set(self.owner.values())
        self.jobs = JobStates(self.past, jobs)
        self._look_again(self.jobs.gone(jobs))
        self.users = Counter(number for left in self.left.values() for number in left)
        self.alive_here = {number for number in self.users if self._is_alive_here(ids[number])}

    def _look_again(self, gone: set[str]) -> None:
        """A job may have ended between the look at the files and the question to Slurm: what it left is there now."""
        for run in self.index.runs:
            left = self.left.get(run.name)
            if left and any(self.owner.get(number) in gone for number in left):
                left[:] = [number for number in left if not self.committed.has_now(self.index.tasks[number])]
                if not set(run.ends) & set(left):
                    self.finished.add(run.name)
                    del self.left[run.name]

    def status(self) -> SweepStatus:
        runs = tuple(self._run(run) for run in self.index.runs)
        shared = tuple(self._shared())
        at_once = sum(one.state is RunState.RUNNING for one in runs) + sum(one.phase is Phase.RUNNING for one in shared)
        return SweepStatus(
            name=self.index.name,
            results=self.results,
            time=datetime.now(timezone.utc),
            runs=runs,
            shared=shared,
            stages_done=len(self.index.tasks) - len(self.users),
            stages=len(self.index.tasks),
            gpu_hours=self.jobs.gpu_hours(),
            seconds_left=self._seconds_left(at_once),
            waits=self.jobs.waits(),
            failures=self._failures(),
            retries=dict(self.past.retries),
            requeues=self.past.requeues.total(),
            bad_nodes=tuple(self.past.bad_nodes),
            notes=tuple(self.jobs.notes),
        )

    # ------------------------------------------------------------ runs

    def _run(self, run: IndexedRun) -> RunStatus:
        if run.name in self.finished:
            return RunStatus(run.name, run.point, run.seed, RunState.DONE, len(run.tasks), len(run.tasks))
        left = self.left[run.name]
        own = self._jobs_of(number for number in left if self.users[number] == 1)
        shared = [job for job in self._jobs_of(left) if job not in own]
        status = RunStatus(
            run.name, run.point, run.seed, RunState.OPEN, len(run.tasks) - len(left), len(run.tasks), jobs=tuple(own or shared)
        )
        phases = {job: self.jobs.phase(job) for job in (*own, *shared)}
        if running := next((job for job in own if phases[job] is Phase.RUNNING), None):
            return self._at_work(replace(status, why=self.jobs.why(running)), left, running)
        if held := next((job for job in phases if phases[job] is Phase.HELD), None):
            return replace(status, state=RunState.HELD, why=self.jobs.why(held))
        before = next((job for job in shared if phases[job] is not Phase.ENDED), None)
        if before is not None and (not own or any(phases[job] is not Phase.ENDED for job in own)):
            why = f"for {self.past.jobs[before].name}, job {before} ({phases[before].value})"
            return replace(status, state=RunState.WAITING, why=why)
        if waiting := next((job for job in own if phases[job] is Phase.WAITING), None):
            return replace(status, state=RunState.WAITING, why=self.jobs.why(waiting))
        return self._stopped(status, left)

    def _stopped(self, status: RunStatus, left: Sequence[int]) -> RunStatus:
        """A run that no job has any more, or that never had one."""
        names = [self.index.tasks[number] for number in left]
        own = [number for number in left if number in self.alive_here and self.users[number] == 1]
        if own:
            return self._at_work(status, own, None)
        if failed := next((name for name in names if self._has_failed(name)), None):
            return replace(status, state=RunState.FAILED, why=self._cause(failed)[0])
        if self.alive_here:
            return replace(status, state=RunState.WAITING, why="for its turn")
        if any(self.jobs.is_cancelled(job) for job in status.jobs):
            return replace(status, state=RunState.CANCELLED, why="the same sweep command submits it again")
        if status.jobs:
            return replace(status, state=RunState.FAILED, why=self.jobs.end(status.jobs[0])[0])
        last = {self.past.task.get(name, {}).get("event") for name in names}
        if last & {"started", "stopped", "retried"}:
            return replace(status, why="interrupted; what was done is kept")
        if "done" in last:
            return replace(status, why="something that was done is gone: eva-hpc explain says what")
        return status

    def _at_work(self, status: RunStatus, left: Sequence[int], job: str | None) -> RunStatus:
        """A run that is at work, with the task it is at, unless it is between two."""
        for number in left:
            if since := self._begun(number, job):
                task, part = self.index.tasks[number], self.index.parts[number]
                return replace(status, state=RunState.RUNNING, task=task, part=part, since=since)
        return replace(status, state=RunState.RUNNING)

    def _begun(self, number: int, job: str | None) -> str | None:
        """Since when a job, or a process of this machine, is at a task; None if it is not."""
        name = self.index.tasks[number]
        event = self.past.task.get(name)
        if event is None or event["event"] not in ("started", "retried") or event.get("job") != job:
            return None
        return str(self.past.started.get(name, event)["time"])

    def _shared(self) -> Iterator[SharedWork]:
        of_job: dict[str, list[int]] = defaultdict(list)
        for number, users in self.users.items():
            if users > 1 and (owner := self.owner.get(number)):
                of_job[owner].append(number)
        for job, numbers in of_job.items():
            if self.jobs.phase(job) is not Phase.ENDED:
                at = next((number for number in numbers if self._begun(number, job)), None)
                yield self._work(self.past.jobs[job].name, job, at)
        for number in sorted(self.alive_here):
            if self.users[number] > 1:
                yield self._work(f"shared by {self.users[number]} runs", None, number)

    def _work(self, name: str, job: str | None, number: int | None) -> SharedWork:
        phase = self.jobs.phase(job) if job else Phase.RUNNING
        why = self.jobs.why(job) if job else ""
        if number is None:
            return SharedWork(name, job, phase, None, "", None, why)
        task, part = self.index.tasks[number], self.index.parts[number]
        return SharedWork(name, job, phase, task, part, self._begun(number, job), why)

    def _jobs_of(self, numbers: Iterator[int] | Sequence[int]) -> list[str]:
        return list(dict.fromkeys(self.owner[number] for number in numbers if number in self.owner))

    def _is_alive_here(self, task: str) -> bool:
        """Whether a process, not a job, is at work on a task."""
        event = self.past.task.get(task)
        if event is None or event["event"] != "started" or "job" in event:
            return False
        try:
            holder = (self.results.parent / "store" / task / WORK / CLAIM).read_text()
        except OSError:
            return False
        return holder.startswith("process") and is_alive(holder)

    # ------------------------------------------------------------ failures

    def _has_failed(self, task: str) -> bool:
        return self.past.task.get(task, {}).get("event") == "failed"

    def _cause(self, task: str) -> tuple[str, str]:
        """Cause and evidence of a task's failure."""
        event = self.past.failed[task]
        return event.get("cause") or "failed", _one_line(event.get("reason"))

    def _failures(self) -> tuple[Failure, ...]:
        """Failures of what is not done, the first of each chain; those that are final come first."""
        failures = []
        explained: set[str | None] = {None}
        for number in sorted(self.users):
            task = self.index.tasks[number]
            if task in self.past.failed:
                cause, evidence = self._cause(task)
                explained.add(self.owner.get(number))
                if cause != Cause.MISSING_INPUT.value or not self._is_below_a_failure(number):
                    failures.append(self._failure(number, self.past.failed[task].get("job"), cause, evidence))
        for number in sorted(self.users):
            job = self.owner.get(number)
            if job in explained or job is None:
                continue
            explained.add(job)
            said = self.past.job.get(job, {}).get("event")
            if self.jobs.phase(job) is Phase.ENDED and said != "failed" and not self.jobs.is_cancelled(job):
                failures.append(self._failure(number, job, *self.jobs.end(job)))
        return tuple(sorted(failures, key=lambda failure: failure.pending))

    def _is_below_a_failure(self, number: int) -> bool:
        """Whether something upstream is not done because it, or the job that was to do it, failed."""
        above = [one for one in self.index.inputs[number] if one in self.users]
        return any(self._has_failed_with_its_job(one) or self._is_below_a_failure(one) for one in above)

    def _has_failed_with_its_job(self, number: int) -> bool:
        job = self.past.job.get(self.owner.get(number) or "", {})
        return self.index.tasks[number] in self.past.failed or job.get("event") == "failed"

    def _failure(self, number: int, job: str | None, cause: str, evidence: str) -> Failure:
        users = tuple(run.name for run in self.index.users[number])
        log = log_path(self.results, Task.model_construct(identity=self.index.identity(number), runs=users))
        following, pending = self._what_next(number, job, cause)
        task, part = self.index.tasks[number], self.index.parts[number]
        return Failure(task, part, users, cause, evidence, log, job, following, pending)

    def _what_next(self, number: int, job: str | None, cause: str) -> tuple[str, bool]:
        """What becomes of a failed task, and whether it is being tried again already."""
        task, owner = self.index.tasks[number], self.owner.get(number)
        if owner is not None and self.jobs.phase(owner) in (Phase.RUNNING, Phase.WAITING):
            if owner == job and self._has_failed(task):
                return f"job {owner} goes on with what does not need it; then the same command tries it again", False
            again = "is being tried again" if owner == job else f"is tried again by job {owner}"
            return f"{again} ({self.jobs.phase(owner).value})", True
        if number in self.alive_here:
            return "is being tried again", True
        decision = self.past.decisions.get(task) or self.past.decisions.get(job or "") or {}
        word = decision.get("decision") if decision.get("time", "") >= self.past.failed.get(task, {}).get("time", "") else None
        if word == "resubmit":
            return "will be submitted again by the launcher, or by the same command", False
        if word == "stop" or cause in {one.value for one in Cause if one.is_users}:
            return "stopped: it needs a change first; then run the same command again", False
        return "run the same command again: it goes on from what is done", False

    def _seconds_left(self, at_once: int) -> float | None:
        """What is left if every stage takes as long as those of its kind took so far; None before enough is known."""
        means = {stage: sum(values) / len(values) for stage, values in self.past.seconds.items()}
        stages = [self.index.stage(number) for number in self.users]
        known = [means[stage] for stage in stages if stage in means]
        if not at_once or not known or len(known) < len(stages) / 2:
            return None
        return sum(known) / len(known) * len(stages) / at_once


class _Committed:
    """What is committed. One look at the folder of a stage answers for all its tasks."""

    def __init__(self, store: Store, past: History) -> None:
        self._store = store
        self._past = past
        self._listings: dict[str, dict[str, dict[str, int]]] = {}
        self._known: dict[str, bool] = {}

    def has(self, task: str) -> bool:
        """Whether a task is done, as of the first time that it or one of its stage was asked for."""
        if task not in self._known:
            self._known[task] = self._find(task)
        return self._known[task]

    def has_now(self, task: str) -> bool:
        """Whether a task is done now."""
        return os.path.exists(f"{self._store.root}/{task}/{MANIFEST}")

    def _find(self, task: str) -> bool:
        stage, _, name = task.partition("/")
        if stage not in self._listings:
            self._listings[stage] = self._store.listing(stage)
        names = self._listings[stage].get(name.partition(".")[0], {})
        # Where the ledger ends with the commit, the folder's name is proof enough: what is set aside gets another name.
        if name in names and (self._past.task.get(task, {}).get("event") == "done" or self.has_now(task)):
            return True
        if "." not in name:
            return False
        larger = containing(Identity.from_name(stage, name), names)
        return any(self.has_now(f"{stage}/{one.name}") for one in larger)


def _one_line(text: object) -> str:
    """The first line of a text that is not empty."""
    return next((line.strip() for line in str(text or "").splitlines() if line.strip()), "")

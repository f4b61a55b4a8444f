"""A sweep on Slurm: again and again, what is there (files, one squeue, one sacct) is held against what should be.

Submitted is what is neither done, nor covered by a job that Slurm still has, nor given up, nor waiting for something given up.
What is decided about a job that has ended is in recovery.py; here it is carried out and written to the ledger.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from eva_hpc.cluster import queue, recovery
from eva_hpc.cluster.blame import bad_nodes, blame, blameworthy
from eva_hpc.cluster.board import Board, State
from eva_hpc.cluster.causes import Cause, cause_of_state
from eva_hpc.cluster.execution import log_path, mark_of_progress
from eva_hpc.cluster.ledger import Ledger, SubmittedJob, jobs_in
from eva_hpc.cluster.submission import AnswerLost, LimitReached, Surroundings, adopt, dependencies, submit
from eva_hpc.plan.jobs import Array, make_arrays, make_jobs, pending_tasks
from eva_hpc.plan.plan import Task
from eva_hpc.store.artifacts import Store
from eva_hpc.store.inventory import Inventory
from eva_hpc.store.lock import Busy, alone

_LOOK_S = 2.0
_LOOK_SELDOM_S = 30.0
_UNSEEN_LOOKS = 3
"""Looks that a job must be missing from the queue before what it left undone counts as not done: files lag behind."""
_FORGET_S = 20.0
"""Seconds between two looks for a job whose answer was lost, before it counts as never taken."""
_LIMIT_S, _LIMIT_SELDOM_S = 5.0, 300.0
_ACCOUNTING_LAG_LOOKS = 5
_MOST_PARENTS = 50


class SlurmSweep:
    """The jobs of one plan on one cluster.

    Args:
        board: shows how far it is.
        around: the sweep, and the environment of its jobs.
        pending: the tasks that are not done.
        canary: whether the first job of an array with unproven stages goes ahead.
    """

    def __init__(self, board: Board, around: Surroundings, pending: Sequence[Task], canary: bool) -> None:
        self.board = board
        self.around = around
        self.plan = around.plan
        self.site = around.site
        self.results = around.results
        self.canary = canary
        self.ledger = Ledger(around.results)
        self.inventory = Inventory(Store(around.store))
        self.waiting = {task.id: task for task in pending}
        self.events: list[dict[str, Any]] = []
        self.jobs: dict[str, SubmittedJob] = {}
        self.told: dict[str, list[dict[str, Any]]] = {}
        self.active: dict[str, queue.QueueEntry] = {}
        self.lost: dict[str, dict[str, Any]] = {}
        self.held: dict[str, None] = {}
        self._settled: set[str] = set()
        self._unseen: Counter[str] = Counter()
        self._looked_for: dict[str, float] = {}
        self._unaccounted: dict[str, int] = {}
        self._memory_gb: dict[str, float] = {}
        self._limit_s = _LIMIT_S
        self._next_try = 0.0
        self._first_look = True

    def run(self, wait: bool) -> bool:
        """Submit what is due and, if asked to, stay until every job has ended; returns whether all have.

        Raises:
            ConfigError: sbatch refused what the site file asks for; arrays submitted before stay.
            ControllerAway: Slurm does not answer, and did not once before.
            Busy: another launcher is submitting this sweep at this moment.
        """
        pause = _LOOK_S
        while True:
            before = self._situation()
            self._collect_done()
            try:
                if wait and not self._first_look:
                    self._turn_if_free()
                else:
                    with alone(self.results):
                        self._turn()
                self._first_look = False
            except queue.QueueError as error:
                if self._first_look:
                    raise
                self.board.note = f"Slurm does not answer, asking again ({error})"
            if not (self.active or self.lost or self._unseen or self._due()):
                self._settle_accounts()
                return True
            if not wait:
                return False
            # Slurm is asked often while things happen, seldom while nothing does. Files are looked at all the time.
            pause = _LOOK_S if self._situation() != before or self._unseen else min(1.3 * pause, _LOOK_SELDOM_S)
            self._sleep(pause)

    def _turn_if_free(self) -> None:
        with suppress(Busy), alone(self.results):  # another launcher does it otherwise
            self._turn()

    def _turn(self) -> None:
        self._look()
        self._conclude_ended()
        self._submit_due()
        self._show()

    def _situation(self) -> tuple[int, int, tuple[str, ...]]:
        return len(self.waiting), len(self.events), tuple(entry.state for entry in self.active.values())

    def _sleep(self, seconds: float) -> None:
        """Wait, but not longer than until another artifact is committed."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _LOOK_S))
            if self._collect_done():
                return

    # ------------------------------------------------------------------------ what is there

    def _collect_done(self) -> bool:
        """Take what is committed off the list; returns whether anything is new."""
        self.inventory.refresh()
        done = [task for task in self.waiting.values() if self.inventory.holds(task.identity)]
        for task in done:
            artifact = self.inventory.find(task.identity)
            self.board.finished(task, artifact.manifest["seconds"] if artifact else 0.0)
            del self.waiting[task.id]
        return bool(done)

    def _look(self) -> None:
        """Read the ledger, ask Slurm once for all jobs that may still do something."""
        self._read_ledger()
        wanted = [job.id for job in self.jobs.values() if job.id not in self._settled]
        entries = queue.squeue(wanted, names=self.lost, ended=True)
        if self.lost:
            self._find_lost(entries)
        self.active = {
            job: entry
            for job, entry in entries.items()
            if entry.active and job in self.jobs and entry.name == self.jobs[job].job_name
        }
        held = self._held_back()
        if self._first_look:
            # Jobs held because of a canary make way for new ones: whoever types the command again has mended something.
            queue.cancel(held)
        else:
            self.held |= dict.fromkeys(task for job in held for task in self.jobs[job].tasks)
            self._settled.update(held)
        for job in held:
            del self.active[job]
        if self._first_look:
            self._settle_history()
        for name in self.held:
            if name in self.waiting and self.board.entries[name].state is State.PENDING:
                self.board.set(self.waiting[name], State.BLOCKED)
        never = [job for job, entry in self.active.items() if entry.reason == "DependencyNeverSatisfied"]
        for job in never:
            del self.active[job]
        queue.cancel(never)
        self.board.note = _in_words(self.active)

    def _read_ledger(self) -> None:
        """Events, the jobs they tell of, and the arrays of which it is not known whether Slurm took them."""
        self.events = self.ledger.events()
        self.jobs = jobs_in(self.events)
        self.told = defaultdict(list)
        for event in self.events:
            if "job" in event and event["event"] not in ("submitted", "attempt", "decision"):
                self.told[event["job"]].append(event)
        answered = {event["token"] for event in self.events if event["event"] in ("submitted", "refused")}
        asked = [event for event in self.events if event["event"] == "submitting" and event["token"] not in answered]
        self.lost = {event["job_name"]: event for event in asked}

    def _find_lost(self, entries: Mapping[str, queue.QueueEntry]) -> None:
        """Adopt the arrays whose answer was lost and that Slurm has; forget those it has not."""
        ids = {entry.name: job.partition("_")[0] for job, entry in entries.items()}
        ids |= {event["token"]: event["job"].partition("_")[0] for event in self.events if event["event"] == "begun"}
        for name, event in self.lost.items():
            job = ids.get(name) or ids.get(event["token"])
            since = self._looked_for.setdefault(name, time.monotonic())
            if job is not None:
                adopt(self.results, self.ledger, event, job)
            elif time.monotonic() - since > _FORGET_S:
                reason = "its answer was lost, and Slurm has no job of this name"
                self.ledger.record("refused", token=event["token"], reason=reason)
        self._read_ledger()

    def _held_back(self) -> list[str]:
        """Active jobs that were held because what they need, or the job that went ahead of them, has failed."""
        held = {job for event in self.events if event.get("decision") == "hold" for job in event["change"]["held"]}
        return [job for job, entry in self.active.items() if job in held and entry.state == "PENDING"]

    def _settle_history(self) -> None:
        """What ended before this command was typed is history: nothing is decided about it, but it has its price."""
        accounted = {event["job"] for event in self.events if event["event"] == "attempt"}
        for job in self.jobs:
            if job not in self.active:
                self._settled.add(job)
                if job not in accounted:
                    self._unaccounted[job] = 0

    # ------------------------------------------------------------------------ what has ended

    def _conclude_ended(self) -> None:
        """Find out why jobs ended that left something undone, and decide what becomes of it."""
        ended = []
        for job in self.jobs.values():
            if job.id in self._settled or job.id in self.active:
                self._unseen.pop(job.id, None)
                continue
            self._unseen[job.id] += 1
            if self._unseen[job.id] >= _UNSEEN_LOOKS or not any(task in self.waiting for task in job.tasks):
                del self._unseen[job.id]
                ended.append(job)
        for job in ended:
            self._settled.add(job.id)
            self._unaccounted[job.id] = 0
        attempts = self._account()
        for job in ended:
            undone = [self.waiting[task] for task in job.tasks if task in self.waiting]
            if undone:
                self._decide(job, undone, attempts.get(job.id, []))

    def _decide(self, job: SubmittedJob, undone: list[Task], attempts: Sequence[queue.Attempt]) -> None:
        own = self.told[job.id]
        failures = [event for event in own if event["event"] == "failed" and event["task"] in self.waiting]
        first = undone[0]
        if failures:
            failed = failures[-1]
            cause, evidence, by_driver = Cause(failed["cause"]), str(failed["reason"]), True
            first = self.waiting[failed["task"]]
        else:
            cause, evidence = self._cause_without_driver(job, attempts)
            by_driver = False
        events = recovery.since_launch(self.events)
        again = recovery.resubmit(cause, events, first.id, self.site.slurm.retries)
        again = again and (not by_driver or cause in (Cause.MISSING_INPUT, Cause.HELD))
        fields: dict[str, Any] = {"change": {}}
        if cause is Cause.MISSING_INPUT:
            self._look_what_is_missing()
            again = again and not self._given_up(self.plan.parents(first))
        if cause is Cause.TIMEOUT:
            fields["mark"] = mark_of_progress(self.inventory.store.work(first.identity))
            again = again and not recovery.makes_no_progress(events, first.id, fields["mark"])
        if again and cause is Cause.HOST_OOM and (memory := _memory_gb(job, attempts)):
            fields["change"] = {"mem_gb": [memory, 2 * memory]}
            self._memory_gb |= dict.fromkeys((task.id for task in undone), 2 * memory)
        decision = "resubmit" if again else "stop"
        tasks = [task.id for task in undone]
        self.ledger.record("decision", job=job.id, tasks=tasks, cause=cause, decision=decision, evidence=evidence, **fields)
        self.events = self.ledger.events()
        if not again and not self._given_up([first, *self.plan.parents(first)]):
            self.board.failed(first, f"{evidence} [{cause.value}]")
            self.board.entries[first.id].log = log_path(self.results, first)
        for task in undone:
            if self.board.entries[task.id].state not in (State.FAILED, State.BLOCKED):
                self.board.set(task, State.PENDING if again else State.BLOCKED)

    def _given_up(self, tasks: Iterable[Task]) -> bool:
        """Whether one of them failed for good, or waits for one that did."""
        return any(self.board.entries[task.id].state in (State.FAILED, State.BLOCKED) for task in tasks)

    def _look_what_is_missing(self) -> None:
        """A job found that an artifact is gone, or moved one away that was corrupt: what was done may have to be done again."""
        self.inventory = Inventory(self.inventory.store)
        for task in pending_tasks(self.plan, self.inventory.holds):
            if task.id not in self.waiting:
                self.waiting[task.id] = task
                self.board.set(task, State.PENDING)

    def _cause_without_driver(self, job: SubmittedJob, attempts: Sequence[queue.Attempt]) -> tuple[Cause, str]:
        """From what Slurm says: accounting, else the queue as long as it remembers, else nothing."""
        if attempts:
            state = attempts[-1].state
            return cause_of_state(attempts[-1]), f"job {job.id} ended, Slurm says {state}, and left no word"
        try:
            entry = queue.squeue([job.id], ended=True).get(job.id)
        except queue.QueueError:
            entry = None
        if entry is None:
            return Cause.LOST, f"job {job.id} is gone, Slurm does not remember it, and it left no word"
        as_attempt = queue.Attempt(entry.state, (0, 0), (0, 0), entry.reason, None, None, 0, {}, "")
        return cause_of_state(as_attempt), f"job {job.id} ended, Slurm says {entry.state} ({entry.reason}), and left no word"

    def _account(self) -> dict[str, list[queue.Attempt]]:
        """Write what jobs cost to the ledger, from one sacct for all that have ended lately; returns its answer."""
        if not self._unaccounted:
            return {}
        try:
            answer = queue.sacct(self._unaccounted)
        except queue.QueueError:
            answer = {}
        for job, looks in list(self._unaccounted.items()):
            name = self.jobs[job].job_name
            rows = [row for row in (answer or {}).get(job, []) if row.end is not None and row.name == name]
            if rows or answer is None or looks >= _ACCOUNTING_LAG_LOOKS:
                del self._unaccounted[job]
                self._record_attempts(self.jobs[job], rows)
            else:
                self._unaccounted[job] += 1
        return {job: rows for job, rows in (answer or {}).items() if rows}

    def _record_attempts(self, job: SubmittedJob, rows: Sequence[queue.Attempt]) -> None:
        """One line for each attempt of a job, by accounting or, without it, by what its drivers wrote."""
        own = self.told[job.id]
        begun = [index for index, event in enumerate(own) if event["event"] == "begun"]
        gpus = int(job.shape["nodes"]) * int(job.shape["gpus_per_node"])
        for number in range(max(len(rows), len(begun))):
            start, end = begun[number : number + 1], begun[number + 1 : number + 2]
            told = own[start[0] : end[0] if end else None] if start else []
            last = told[-1] if told else {"event": ""}
            cause = Cause(last["cause"]) if last["event"] in ("requeued", "failed", "retried") else None
            if number < len(rows):
                row = rows[number]
                if cause is None and row.state != "COMPLETED":
                    cause = cause_of_state(row)
                spent, held, source, state = row.elapsed_s, row.gpus, "sacct", row.state
                nodes = row.nodes
                code = row.exit[0]
            else:
                spent, held, source, state = _seconds(told), gpus, "ledger", "UNKNOWN"
                nodes, code = str(told[0]["nodes"]), None
            names = _hostnames(nodes)
            if cause is Cause.NODE_FAILURE:
                down = queue.down_nodes(nodes) if len(names) > 1 else []
                blame(self.results, blameworthy(names, down), job.id, number)
            self.ledger.record(
                "attempt",
                job=job.id,
                name=job.name,
                attempt=number,
                state=state,
                exit=code,
                nodes=names,
                elapsed_s=spent,
                gpus=held,
                gpu_seconds=spent * held,
                cause=cause,
                source=source,
            )

    def _settle_accounts(self) -> None:
        """At the end, give accounting the time it needs."""
        for _ in range(_ACCOUNTING_LAG_LOOKS + 1):
            self._account()
            if not self._unaccounted:
                return
            time.sleep(_LOOK_S)

    # ------------------------------------------------------------------------ what is due

    def _covered(self) -> dict[str, str]:
        """Tasks that a job will do which Slurm has, may have, or had a moment ago; with the id of the job where it is known."""
        covered = {task: job for job in [*self._unseen, *self.active] for task in self.jobs[job].tasks}
        return covered | {task: "" for event in self.lost.values() for job in event["jobs"] for task in job["tasks"]}

    def _due(self) -> list[Task]:
        covered = self._covered()
        undecided = {task for job in self._unseen for task in self.jobs[job].tasks if task in self.waiting}
        return [
            task
            for task in self.waiting.values()
            if task.id not in covered
            and not self._given_up([task])
            and not any(parent.id in undecided for parent in self.plan.parents(task))
        ]

    def _submit_due(self) -> None:
        due = self._due()
        if not due or self.lost or time.monotonic() < self._next_try:
            return
        jobs = make_jobs(self.plan, due, self.site)
        proven = {event["task"].partition("/")[0] for event in self.events if event["event"] == "done"} if self.canary else None
        arrays = make_arrays(self.plan, jobs, self.site, max(1, queue.max_array_size()), proven, self._memory_gb)
        exclude = bad_nodes(self.results, self.site.slurm.exclude_node_after)
        tokens: dict[str, str] = {}
        try:
            for array in arrays:
                self._submit(array, tokens, exclude)
            self._limit_s = _LIMIT_S
        except LimitReached as limit:
            self._next_try = time.monotonic() + self._limit_s
            self._limit_s = min(2 * self._limit_s, _LIMIT_SELDOM_S)
            self.board.note = f"{len(self._due())} stages are not submitted yet: {limit}"
        except AnswerLost as error:
            self.board.note = f"whether Slurm took the jobs is not known yet: {error}"
        self._read_ledger()

    def _submit(self, array: Array, tokens: dict[str, str], exclude: Collection[str]) -> None:
        """Submit an array, as much of it as Slurm takes.

        Raises:
            LimitReached: it did not take all; what depends on the rest must wait.
        """
        main_ids = {event["token"]: event["job"] for event in self.ledger.own() if event["event"] == "submitted"}
        new = {name: [main_ids[token]] for name, token in tokens.items()}
        own = {task for job in array.jobs for task in job.tasks}
        covered = self._covered()
        parents = {parent.id for name in own for parent in self.plan.parents(self.plan.by_id[name])} - own
        earlier = sorted({covered[parent] for parent in parents if covered.get(parent) in self.active})
        if len(earlier) > _MOST_PARENTS:
            earlier = sorted({job.partition("_")[0] for job in earlier})
        waits_for = [*(f"afterany:{job}" for job in earlier if job.partition("_")[0] not in main_ids.values())]
        waits_for += dependencies(array, new)
        size = len(array.jobs)
        while True:
            piece = array.model_copy(update={"jobs": array.jobs[:size]})
            try:
                tokens[array.name] = submit(piece, self.around, self.ledger, waits_for, tokens.get(array.canary or ""), exclude)
            except LimitReached:
                if size == 1:
                    raise
                size //= 2
                continue
            if size < len(array.jobs):
                raise LimitReached(f"{size} of {len(array.jobs)} jobs of array {array.name} were taken")
            self._enter(tokens[array.name])
            return

    def _enter(self, token: str) -> None:
        """Count the jobs of a new submission as active, until Slurm is asked."""
        asked = queue.QueueEntry("PENDING", "None", None)
        new = [job for job in jobs_in(self.ledger.own()).values() if job.token == token]
        self.jobs |= {job.id: job for job in new}
        self.active |= dict.fromkeys((job.id for job in new), asked)

    def _show(self) -> None:
        """Tasks that have started and not ended are running, if their job is."""
        for event in self.events:
            task = self.waiting.get(event.get("task", ""))
            running = self.active.get(event.get("job", ""))
            if event["event"] != "started" or task is None or running is None or running.state != "RUNNING":
                continue
            if self.board.entries[task.id].state is State.PENDING:
                work = self.inventory.store.work(task.identity)
                self.board.started(task, log_path(self.results, task), work)


def _in_words(jobs: Mapping[str, queue.QueueEntry]) -> str:
    """How many jobs wait, and what for, in Slurm's words."""
    reasons = Counter(entry.reason for entry in jobs.values() if entry.state == "PENDING")
    return ", ".join(f"{count} waiting ({reason})" for reason, count in reasons.most_common(3))


def _memory_gb(job: SubmittedJob, attempts: Sequence[queue.Attempt]) -> float:
    """What a job had per node; 0 if neither the site nor accounting tells."""
    if job.shape.get("mem_gb"):
        return float(job.shape["mem_gb"])
    for attempt in reversed(attempts):
        number, unit = attempt.tres.get("mem", "0")[:-1], attempt.tres.get("mem", "0")[-1:]
        if unit in "MGT" and number:
            return float(number) * {"M": 1 / 1024, "G": 1, "T": 1024}[unit] / max(1, int(attempt.tres.get("node", 1)))
    return 0.0


def _seconds(events: Iterable[Mapping[str, Any]]) -> float:
    times = [datetime.fromisoformat(event["time"]) for event in events]
    return round((max(times) - min(times)).total_seconds(), 3)


def _hostnames(nodes: str) -> list[str]:
    try:
        return queue.hostnames(nodes) if nodes and "None" not in nodes else []
    except queue.QueueError:
        return [nodes]

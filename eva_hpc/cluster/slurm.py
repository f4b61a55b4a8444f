"""A sweep on Slurm: again and again, what is there (files, one squeue, one sacct) is held against what should be.

Submitted is what is neither done, nor covered by a job that Slurm still has, nor given up, nor waiting for something given up.
What is decided about a job that has ended is in recovery.py; here it is carried out and written to the ledger.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from eva_hpc.cluster import queue, recovery
from eva_hpc.cluster.blame import bad_nodes
from eva_hpc.cluster.board import Board, State
from eva_hpc.cluster.books import Books
from eva_hpc.cluster.causes import Cause, cause_of_state
from eva_hpc.cluster.execution import log_path, mark_of_progress
from eva_hpc.cluster.ledger import Ledger, SubmittedJob, jobs_in
from eva_hpc.cluster.submission import AnswerLost, LimitReached, Surroundings, adopt, dependencies, submit
from eva_hpc.config.errors import ConfigError
from eva_hpc.plan.jobs import Array, make_arrays, make_jobs, pending_tasks
from eva_hpc.plan.plan import Task
from eva_hpc.store.artifacts import Store
from eva_hpc.store.inventory import Inventory
from eva_hpc.store.lock import Busy, alone

_LOOK_S = 2.0
_LOOK_SELDOM_S = 30.0
_UNSEEN_LOOKS = 3
"""Looks that a job must be missing from the queue before what it left undone counts as not done: files lag behind."""
_UNSEEN_LOOKS_IF_DONE = 45
"""The same if its driver says that it did it: caches of network file systems may not know of a file for more than a minute."""
_FORGET_S = 20.0
"""Seconds between two looks for a job whose answer was lost, before it counts as never taken."""
_LIMIT_S, _LIMIT_SELDOM_S = 5.0, 300.0
_OTHERS_MAY_TAKE_S = 60.0
_MOST_PARENTS = 50
_NEVER = "DependencyNeverSatisfied"


@dataclass(frozen=True)
class _Undone:
    """What a job left undone for one cause: the task that tells it, and others with it. `by_driver`: its driver said so."""

    first: Task
    tasks: list[Task]
    cause: Cause
    evidence: str
    by_driver: bool


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
        self.books = Books(around.results, self.ledger)
        self.inventory = Inventory(Store(around.store))
        self.waiting = {task.id: task for task in pending}
        self.events: list[dict[str, Any]] = []
        self.jobs: dict[str, SubmittedJob] = {}
        self.told: dict[str, list[dict[str, Any]]] = {}
        self.entries: dict[str, queue.QueueEntry] = {}
        self.active: dict[str, queue.QueueEntry] = {}
        self.lost: dict[str, dict[str, Any]] = {}
        self.held: dict[str, None] = {}
        self._settled: set[str] = set()
        self._unseen: Counter[str] = Counter()
        self._made_way: set[str] = set()
        self._looked_for: dict[str, float] = {}
        self._memory_gb: dict[str, float] = {}
        self._fits: int | None = None
        self._limit_s = _LIMIT_S
        self._next_try = 0.0
        self._first_look = True

    def run(self, wait: bool) -> bool:
        """Submit what is due and, if asked to, stay until every job has ended; returns whether all have.

        Raises:
            ConfigError: sbatch refused what the site file asks for at the first time; arrays submitted before stay.
            ControllerAway: Slurm does not answer, and did not once before.
            Busy: another launcher submits this sweep, for longer than a minute.
        """
        pause = _LOOK_S
        while True:
            before = self._situation()
            self._collect_done()
            try:
                if self._first_look:
                    with alone(self.results, _OTHERS_MAY_TAKE_S):
                        self._turn()
                    self._first_look = False
                else:
                    with suppress(Busy), alone(self.results):  # another launcher does it otherwise
                        self._turn()
            except queue.QueueError as error:
                if self._first_look:
                    raise
                self.board.note = f"Slurm does not answer, asking again ({error})"
            if not (self.active or self.lost or self._unseen or self._due()):
                self._settle_accounts()
                return True
            if not wait and not self.lost:
                return False
            # Slurm is asked often while things happen, seldom while nothing does. Files are looked at all the time.
            pause = _LOOK_S if self._situation() != before or self._unseen else min(1.3 * pause, _LOOK_SELDOM_S)
            self._sleep(pause)

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
        # A controller that lost its last seconds may give the id of a job that it forgot to another: the name tells.
        self.entries = {
            job: entry for job, entry in entries.items() if job in self.jobs and entry.name == self.jobs[job].job_name
        }
        self.active = {job: entry for job, entry in self.entries.items() if entry.active}
        if self._first_look:
            self._settle_history()
        self._deal_with_what_never_starts()
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

    def _settle_history(self) -> None:
        """What ended before this command was typed is history: nothing is decided about it, but it has its price."""
        accounted = {event["job"] for event in self.events if event["event"] == "attempt"}
        ended = [job for job in self.jobs if job not in self.active]
        self._settled.update(ended)
        self.books.add(job for job in ended if job not in accounted)

    def _deal_with_what_never_starts(self) -> None:
        """Jobs whose canary, or whose own run before them, has failed.

        They stay in the queue as long as this command does not know better. When it is typed again, or what failed goes in
        another job, they make way for new ones.
        """
        never = [job for job, entry in self.active.items() if entry.reason == _NEVER]
        for job in never:
            if not self._first_look and self._is_hopeless(self.jobs[job]):
                self.held |= dict.fromkeys(self.jobs[job].tasks)
                for name in self.jobs[job].tasks:
                    if name in self.waiting:
                        self.board.set(self.waiting[name], State.BLOCKED)
                self._settled.add(job)
                del self.active[job]
        undecided = any(job not in self._settled and job not in self.active for job in self.jobs)
        gone = [] if undecided else [job for job in never if job in self.active]
        queue.cancel(gone)
        self._made_way.update(gone)
        for job in gone:
            del self.active[job]
            if self._first_look:
                self._settled.add(job)

    def _is_hopeless(self, job: SubmittedJob) -> bool:
        """Whether the canary of a job is given up, or each of its tasks waits for something that is."""
        left = [self.waiting[name] for name in job.tasks if name in self.waiting]
        return self._canary_given_up(job) or (bool(left) and all(self._cannot_be_done(task) for task in left))

    def _cannot_be_done(self, task: Task) -> bool:
        return self._given_up([task, *self.plan.parents(task)])

    def _canary_given_up(self, job: SubmittedJob) -> bool:
        ahead = [name for other in self.jobs.values() if other.token == job.canary for name in other.tasks]
        return self._given_up(self.plan.by_id[name] for name in ahead)

    # ------------------------------------------------------------------------ what has ended

    def _conclude_ended(self) -> None:
        """Find out why jobs ended that left something undone, and decide what becomes of it."""
        ended = []
        for job in self.jobs.values():
            if job.id in self._settled or job.id in self.active:
                self._unseen.pop(job.id, None)
                continue
            self._unseen[job.id] += 1
            undone = {task for task in job.tasks if task in self.waiting}
            done = {event["task"] for event in self.told[job.id] if event["event"] == "done"}
            looks = _UNSEEN_LOOKS_IF_DONE if undone <= done else _UNSEEN_LOOKS
            if not undone or self._unseen[job.id] >= looks:
                ended.append(job)
        if ended:  # there is room in the queue
            self._next_try, self._limit_s = 0.0, _LIMIT_S
        self.books.add(job.id for job in ended)
        attempts = self.books.ask(self.jobs, self.told)
        since = recovery.since_launch(self.events)
        decided: dict[str, list[recovery.Event]] = defaultdict(list)
        for event in since:
            if event.get("decision") in ("resubmit", "stop"):
                decided[event["job"]].append(event)
        missing = False
        for job in ended:
            undone_tasks = [self.waiting[task] for task in job.tasks if task in self.waiting]
            if undone_tasks and job.id not in decided:
                missing = self._decide(job, undone_tasks, attempts.get(job.id, []), missing)
            for event in decided[job.id]:  # by another launcher
                tasks = [self.waiting[task] for task in event["tasks"] if task in self.waiting]
                if tasks and event["decision"] == "stop":
                    self._give_up(tasks[0], tasks, str(event["evidence"]), Cause(event["cause"]))
            self._settled.add(job.id)
            self._unseen.pop(job.id, None)

    def _decide(self, job: SubmittedJob, undone: list[Task], attempts: Sequence[queue.Attempt], looked: bool) -> bool:
        """Decide about a job; returns whether it was looked for what is missing, which is done once in a turn at most."""
        for some in self._by_cause(job, undone, attempts):
            looked = self._decide_about(job, some, attempts, looked)
        return looked

    def _by_cause(self, job: SubmittedJob, undone: list[Task], attempts: Sequence[queue.Attempt]) -> list[_Undone]:
        """What a job left undone: each task that its driver says failed, with those that wait for it; and the rest."""
        begun = [index for index, event in enumerate(self.told[job.id]) if event["event"] == "begun"]
        latest = self.told[job.id][begun[-1] :] if begun else []
        failures = {event["task"]: event for event in latest if event["event"] == "failed" and event["task"] in self.waiting}
        rest = {task.id: task for task in undone}
        found = []
        for number, (name, event) in enumerate(failures.items(), start=1):
            cause = Cause(event["cause"])
            # A driver that could not go on left all the rest for this cause.
            gone_on = cause.is_of_the_task or number < len(failures)
            below = self._below(name)
            tasks = [rest.pop(one) for one in list(rest) if one in below or not gone_on]
            if tasks:
                found.append(_Undone(self.waiting[name], tasks, cause, str(event["reason"]), by_driver=True))
        if rest:
            tasks = [task for task in rest.values() if not self._cannot_be_done(task)] or list(rest.values())
            found.append(_Undone(tasks[0], tasks, *self._cause_without_driver(job, attempts), by_driver=False))
        return found

    def _below(self, task: str) -> set[str]:
        """A task and all that cannot be done without it."""
        below: set[str] = set()
        todo = [self.plan.by_id[task]]
        while todo:
            one = todo.pop()
            if one.id not in below:
                below.add(one.id)
                todo += self.plan.children(one)
        return below

    def _decide_about(self, job: SubmittedJob, some: _Undone, attempts: Sequence[queue.Attempt], looked: bool) -> bool:
        first, undone, cause, evidence = some.first, some.tasks, some.cause, some.evidence
        events = recovery.since_launch(self.events)
        again = recovery.resubmit(cause, events, first.id, self.site.slurm.retries)
        # A driver has spent the budgets itself before it fails, but can only wait for what others do.
        again = again and (not some.by_driver or cause in (Cause.MISSING_INPUT, Cause.UNAVAILABLE))
        fields: dict[str, Any] = {"change": {}}
        if cause is Cause.MISSING_INPUT and not looked:
            self._look_what_is_missing()
            looked = True
        if cause in (Cause.MISSING_INPUT, Cause.HELD):
            again = again and not (self._cannot_be_done(first) or self._canary_given_up(job))
        if cause is Cause.TIMEOUT:
            fields["mark"] = mark_of_progress(self.inventory.store.work(first.identity))
            again = again and not recovery.makes_no_progress(events, first.id, fields["mark"])
        if again and cause is Cause.HOST_OOM and (memory := _memory_gb(job, attempts)):
            fields["change"] = {"mem_gb": [memory, 2 * memory]}
            self._memory_gb |= dict.fromkeys((task.id for task in undone), 2 * memory)
        fields |= {"cause": cause, "decision": "resubmit" if again else "stop", "evidence": evidence}
        self.events.append(self.ledger.record("decision", job=job.id, tasks=[task.id for task in undone], **fields))
        if again:
            for task in undone:
                if not self._given_up([task]):
                    self.board.set(task, State.PENDING)
        else:
            self._give_up(first, undone, evidence, cause)
        return looked

    def _give_up(self, first: Task, undone: Iterable[Task], evidence: str, cause: Cause) -> None:
        """A task failed for good, and with it others that its job was to do."""
        if not self._given_up([first, *self.plan.parents(first)]):
            self.board.failed(first, f"{evidence} [{cause.value}]")
            self.board.entries[first.id].log = log_path(self.results, first)
        for task in undone:
            if not self._given_up([task]):
                self.board.set(task, State.BLOCKED)

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
        # A job does its tasks in the order given.
        self.waiting = {task.id: task for task in self.plan.tasks if task.id in self.waiting}

    def _cause_without_driver(self, job: SubmittedJob, attempts: Sequence[queue.Attempt]) -> tuple[Cause, str]:
        """By who cancelled it; by the controller as long as it remembers; by accounting, which lags behind; else nothing."""
        if any(event["event"] == "cancelled" and job.id in event["jobs"] for event in self.events):
            return Cause.CANCELLED, f"job {job.id} was cancelled by eva-hpc cancel"
        if job.id in self._made_way:
            return Cause.HELD, f"job {job.id} waited for one that failed, and made way for another"
        entry = self.entries.get(job.id)
        if entry is not None and not entry.active:
            as_attempt = queue.Attempt(entry.state, (0, 0), (0, 0), entry.reason, None, None, 0, {}, "")
            if attempts and entry.state in ("FAILED", "COMPLETED"):  # accounting knows of killed steps
                as_attempt = attempts[-1]
            return cause_of_state(
                as_attempt
            ), f"job {job.id} ended, Slurm says {entry.state} ({entry.reason}), and left no word"
        if attempts:
            return cause_of_state(attempts[-1]), f"job {job.id} ended, accounting says {attempts[-1].state}, and left no word"
        return Cause.LOST, f"job {job.id} is gone, Slurm does not remember it, and it left no word"

    def _settle_accounts(self) -> None:
        """At the end, give accounting the time it needs."""
        while self.books.open:
            self.books.ask(self.jobs, self.told)
            if self.books.open:
                time.sleep(_LOOK_S)

    # ------------------------------------------------------------------------ what is due

    def _covered(self) -> dict[str, str]:
        """Tasks that a job will do which Slurm has, may have, or had a moment ago; with the id of the job where it is known."""
        covered = {task: job for job in [*self._unseen, *self.active] for task in self.jobs[job].tasks}
        return covered | {task: "" for event in self.lost.values() for job in event["jobs"] for task in job["tasks"]}

    def _due(self) -> list[Task]:
        covered = self._covered()
        undecided = {task for job in self._unseen for task in self.jobs[job].tasks if task in self.waiting}
        cancelled = self._cancelled_runs()
        return [
            task
            for task in self.waiting.values()
            if task.id not in covered
            and not self._given_up([task])
            and not any(parent.id in undecided for parent in self.plan.parents(task))
            and not (cancelled is not None and cancelled.issuperset(task.runs))
        ]

    def _cancelled_runs(self) -> set[str] | None:
        """The runs that `eva-hpc cancel` has cancelled since the command was typed; None if there are none."""
        events = [event for event in recovery.since_launch(self.events) if event["event"] == "cancelled"]
        if not events:
            return None
        everything = {run.name for run in self.plan.runs}
        return set().union(*(event.get("runs") or everything for event in events))

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
            self._fits = None
        except LimitReached as limit:
            self._next_try = time.monotonic() + self._limit_s
            self._limit_s = min(2 * self._limit_s, _LIMIT_SELDOM_S)
            self.board.note = f"{len(self._due())} stages are not submitted yet: {limit}"
        except AnswerLost as error:
            self.board.note = f"whether Slurm took the jobs is not known yet: {error}"
        except ConfigError as error:
            if self._first_look:
                raise
            refused = next(array for array in arrays if array.name not in tokens)
            tasks = [self.waiting[name] for job in refused.jobs for name in job.tasks]
            evidence = str(error)
            fields = {"cause": Cause.LAUNCH_FAILURE, "decision": "stop", "evidence": evidence, "change": {}}
            self.ledger.record("decision", job="", tasks=[task.id for task in tasks], **fields)
            for job in refused.jobs:
                mine = [self.waiting[name] for name in job.tasks]
                self._give_up(mine[0], mine, evidence, Cause.LAUNCH_FAILURE)
        self._read_ledger()

    def _submit(self, array: Array, tokens: dict[str, str], exclude: Collection[str]) -> None:
        """Submit an array, as much of it as Slurm takes; `tokens` are those of this turn by array.

        Raises:
            LimitReached: it did not take all; what depends on the rest must wait.
        """
        main_ids = {event["token"]: event["job"] for event in self.ledger.own() if event["event"] == "submitted"}
        new = {name: [main_ids[token]] for name, token in tokens.items()}
        of_this_turn = {job for jobs in new.values() for job in jobs}
        own = {task for job in array.jobs for task in job.tasks}
        covered = self._covered()
        parents = {parent.id for name in own for parent in self.plan.parents(self.plan.by_id[name])} - own
        earlier = {covered[parent] for parent in parents if covered.get(parent) in self.active}
        earlier = {job for job in earlier if job.partition("_")[0] not in of_this_turn}
        if len(earlier) > _MOST_PARENTS:
            earlier = {job.partition("_")[0] for job in earlier}
        waits_for = [*(f"afterany:{job}" for job in sorted(earlier)), *dependencies(array, new)]
        size = min(len(array.jobs), self._fits or len(array.jobs))
        while True:
            piece = array.model_copy(update={"jobs": array.jobs[:size]})
            try:
                tokens[array.name] = submit(piece, self.around, self.ledger, waits_for, tokens.get(array.canary or ""), exclude)
            except LimitReached:
                self._fits = max(1, size // 2)
                if size == 1:
                    raise
                size //= 2
                continue
            self._enter(tokens[array.name])
            if size < len(array.jobs):
                raise LimitReached(f"{size} of {len(array.jobs)} jobs of array {array.name} were taken")
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

"""The driver of a Slurm job: does the job's tasks one after the other, and helps itself when something ends them.

A task that fails for good takes with it those that read from it; the others are done, and then the job fails.

submitit starts one driver per array task, on the first node. State is in the store alone: a driver that starts again, after a
requeue or in another job, passes over what is committed. What it does after a failure is in recovery.py.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import orjson
from pydantic import BaseModel, ConfigDict

from eva_hpc.cluster import queue, recovery
from eva_hpc.cluster.blame import bad_nodes, blame, blameworthy
from eva_hpc.cluster.causes import Cause, cause_of_state
from eva_hpc.cluster.execution import Attempt, conclude, grace_s, lighten, mark_of_progress, prepare, prepare_ahead, spend
from eva_hpc.cluster.failure import failure_of
from eva_hpc.cluster.hosts import WarmStarts
from eva_hpc.cluster.ledger import Ledger
from eva_hpc.cluster.node_local import remove_caches
from eva_hpc.cluster.owners import is_alive, this_job
from eva_hpc.cluster.step import Outcome, Step, WorkAhead
from eva_hpc.config.site import Site
from eva_hpc.plan.plan import Task
from eva_hpc.store.artifacts import Store
from eva_hpc.store.keys import Identity

_LOOK_AGAIN_S = 5.0
_ASK_SLURM_AGAIN_S = 60.0
_SLURM_ENDS_IT_S = 60.0
_POLL_S = 1.0


class _TaskFailed(Exception):
    """A task failed for good; what does not read from it can still be done."""


class Submission(BaseModel):
    """What a driver needs to know of the sweep it belongs to; written once, before its array is submitted."""

    model_config = ConfigDict(frozen=True)

    site: Site
    store: Path
    results: Path
    token: str
    time_minutes: int


@dataclass
class Driver:
    """What submitit pickles: where the submission is, the job's name, and its tasks as JSON."""

    submission: Path
    name: str
    tasks: tuple[bytes, ...]

    def __call__(self) -> str:
        """Run the tasks; returns a word for submitit's own record.

        Raises:
            SystemExit: a task failed; the ledger and its log say why.
        """
        tasks = [Task.model_validate_json(task) for task in self.tasks]
        job = _Job(Submission.model_validate_json(self.submission.read_bytes()), self.name, tasks)
        try:
            return job.run()
        finally:
            job.warm.close()


class _Job:
    def __init__(self, submission: Submission, name: str, tasks: list[Task]) -> None:
        self.submission = submission
        self.site = submission.site
        self.name = name
        self.tasks = tasks
        self.id = _job_id()
        self.restart = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
        self.store = Store(submission.store)
        self.ledger = Ledger(submission.results, f"job-{self.id}")
        self.warm = WarmStarts(self.site, tasks, lambda reason: self.ledger.record("cold_start", job=self.id, reason=reason))
        self.failed = 0
        self.began = time.monotonic()
        self.told_to_save = 0.0
        # Steps get these signals from Slurm themselves; the driver must outlive them. USR2 says that the time is nearly over:
        # save and go on later. TERM says that Slurm ends the job: by the user's scancel, which must not be undone, or to
        # preempt it, which Slurm follows up by itself if the driver is still there.
        self.time_is_up = threading.Event()
        self.ended = threading.Event()
        signal.signal(signal.SIGUSR2, self._on_time_is_up)
        signal.signal(signal.SIGTERM, lambda *_: self.ended.set())
        threading.Thread(target=self._note_the_end, daemon=True).start()

    def _on_time_is_up(self, *_: object) -> None:
        self.told_to_save = self.told_to_save or time.monotonic()
        self.time_is_up.set()

    def run(self) -> str:
        earlier = self._failed_before()
        self._look_back()
        self.warm.expect(task for task in self.tasks if self.store.find(task.identity) is None)
        undone: list[Identity] = []
        for task in self.tasks:
            if self._cannot_be_done(task, undone):
                undone.append(task.identity)
                continue
            try:
                self._do(task, earlier.get(task.id))
            except _TaskFailed:
                undone.append(task.identity)
        remove_caches(os.environ["SLURM_JOB_ID"])
        if undone:
            self._say_last_what_failed()
            raise SystemExit(1)
        return "done"

    def _do(self, task: Task, failed: recovery.Event | None) -> None:
        """Do a task, unless it is done or `failed` in this job already.

        Raises:
            SystemExit: it failed, and others in this job would too.
            _TaskFailed: it failed.
        """
        try:
            if failed is not None and self.store.find(task.identity) is None:
                self._fail(task, Cause(failed["cause"]), str(failed["reason"]))
            if self._is_ours_to_do(task):
                self._run(task)
        except _TaskFailed:
            raise
        except Exception as error:
            failure = failure_of(error)
            self._fail(task, failure.cause, failure.reason)

    def _cannot_be_done(self, task: Task, undone: list[Identity]) -> bool:
        """Whether it reads something that was not made in this job."""
        return any(
            source.contains(identity) and self.store.find(identity) is None
            for identity in task.inputs.values()
            for source in undone
        )

    def _failed_before(self) -> dict[str, recovery.Event]:
        """How tasks failed for good before the driver put the job back into the queue, to go on with others."""
        known = recovery.since_launch(self.ledger.of_launchers()) if self.restart else []
        mine = [event for event in known if event.get("job") == self.id and event["event"] != "ended"]
        if not mine or mine[-1]["event"] not in ("requeued", "retried"):
            return {}
        begun = max((index for index, event in enumerate(mine) if event["event"] == "begun"), default=0)
        return {event["task"]: event for event in mine[begun:] if event["event"] == "failed"}

    def _say_last_what_failed(self) -> None:
        """The last word of a job tells how it ended."""
        mine = self.ledger.own()
        if mine[-1]["event"] != "failed":
            failed = next(event for event in reversed(mine) if event["event"] == "failed")
            self.ledger.record(**{name: value for name, value in failed.items() if name != "time"})

    # ------------------------------------------------------------------------ the job

    def _look_back(self) -> None:
        """Note what ended the attempt before this one, if there was one, and leave a node that fails again and again."""
        nodes = os.environ.get("SLURM_JOB_NODELIST", "")
        before = [event for event in self.ledger.own() if event["event"] == "begun"] if self.restart else []
        if before:
            cause, blamed, evidence = self._what_ended(str(before[-1]["nodes"]))
            self.ledger.record("restarted", job=self.id, restart=self.restart, cause=cause, nodes=blamed, evidence=evidence)
            blame(self.submission.results, blamed, self.id, self.restart - 1)
        self.ledger.record("begun", job=self.id, name=self.name, nodes=nodes, restart=self.restart, token=self.submission.token)
        bad = bad_nodes(self.submission.results, self.site.slurm.exclude_node_after)
        if bad and nodes and set(bad) & set(queue.hostnames(nodes)):
            evidence = f"failed {self.site.slurm.exclude_node_after} times or more: {', '.join(bad)}; this job has {nodes}"
            fields: dict[str, Any] = {"cause": Cause.NODE_FAILURE, "evidence": evidence, "change": {"exclude": bad}}
            self.ledger.record("decision", job=self.id, tasks=[], decision="exclude", **fields)
            self._requeue(ExcNodeList=",".join([*self._excluded(), *bad]))

    def _what_ended(self, nodes: str) -> tuple[Cause, list[str], str]:
        """Cause of the end of the attempt before, the nodes to blame, and what tells so."""
        # An order to end comes after each of these: Slurm carries them out.
        last = next(event for event in reversed(self.ledger.own()) if event["event"] != "ended")
        told = self.ledger.own()[-1]["event"] == "ended"
        if last["event"] in ("requeued", "retried", "decision"):
            return Cause(last["cause"]), [], "the driver put the job back into the queue"
        down: list[str] = []
        try:
            down = queue.down_nodes(nodes)
            attempts = (queue.sacct([self.id]) or {}).get(self.id, [])
            states = [attempt for attempt in attempts if attempt.state not in ("PENDING", "RUNNING", "REQUEUED")]
        except queue.QueueError:
            states = []
        if states:
            cause, evidence = cause_of_state(states[-1]), f"accounting says {states[-1].state}"
        elif down or not told:
            evidence = f"{', '.join(down)} down" if down else "Slurm started the job again, and its driver was not told to end"
            cause = Cause.NODE_FAILURE
        else:
            cause, evidence = Cause.PREEMPTED, "Slurm told the driver to end, then started the job again"
        # Without accounting it may have been something else that ended it: only a node that is down is to blame.
        blamed = (blameworthy(queue.hostnames(nodes), down) if states else down) if cause is Cause.NODE_FAILURE else []
        return cause, blamed, evidence

    def _excluded(self) -> list[str]:
        """Nodes that the job avoids already, because the site says so: a new list takes the place of the old."""
        try:
            nodes = queue.show_job(self.id).get("ExcNodeList", "(null)")
        except queue.QueueError:
            return []
        return [] if nodes == "(null)" else [nodes]

    def _note_the_end(self) -> None:
        """Write down that Slurm ends the job, whatever the driver is busy with: it has seconds left."""
        self.ended.wait()
        self.ledger.record("ended", job=self.id)

    def _requeue(self, **changes: str) -> NoReturn:
        """Put the job back into the queue and change what it asks for; Slurm ends this process.

        Where Slurm refuses, it ends the job all the same when its time is up, and the launcher submits it again.
        """
        # The TERM that follows at once reaches Slurm's own commands too, if they run here: what is ignored, they ignore.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self._until_answered(lambda: queue.requeue(self.id))
        if changes:
            self._until_answered(lambda: queue.update(self.id, changes))
        signal.signal(signal.SIGTERM, lambda *_: self.ended.set())
        self._await_the_end()

    def _until_answered(self, ask: Callable[[], None]) -> None:
        """Ask Slurm for something, again while its controller is away."""
        while True:
            try:
                return ask()
            except queue.ControllerAway:
                time.sleep(_LOOK_AGAIN_S)
            except queue.QueueError as error:
                print(f"Slurm refused: {error}", file=sys.stderr, flush=True)
                return None

    def _leave_if_told_to(self, task: Task) -> None:
        if self.time_is_up.is_set():
            self._save_and_requeue(task)
        if self.ended.is_set():
            self._await_the_end()

    def _save_and_requeue(self, task: Task) -> NoReturn:
        """Go back into the queue, unless the stage never gets further than this within its time."""
        at_limit = self.told_to_save - self.began > 60 * self.submission.time_minutes - self.site.slurm.signal_delay_s - 120
        cause = Cause.TIMEOUT if at_limit else Cause.PREEMPTED
        saved: dict[str, Any] = {"progress": _progress(self.store.work(task.identity))}
        if at_limit:
            mark = mark_of_progress(self.store.work(task.identity))
            if recovery.makes_no_progress(recovery.since_launch(self.ledger.of_launchers()), task.id, mark):
                limit = self.submission.time_minutes
                self._fail(task, cause, f"{recovery.MOST_WITHOUT_PROGRESS} attempts in a row saved nothing new in {limit} min")
            saved["mark"] = mark
        self.ledger.record("requeued", task=task.id, job=self.id, cause=cause, **saved)
        self._requeue()

    def _await_the_end(self) -> NoReturn:
        """Stay until Slurm kills this process: leaving early would make a failure of what is none."""
        while True:
            signal.pause()

    # ------------------------------------------------------------------------ a task

    def _is_ours_to_do(self, task: Task) -> bool:
        """False once the artifact is committed, True once this job has claimed it; until then another job is at it."""
        owner = this_job(self.id)
        asked = -_ASK_SLURM_AGAIN_S
        while self.store.find(task.identity) is None:
            self._leave_if_told_to(task)
            holder = self.store.claim(task.identity, owner)
            # Files are looked at often; Slurm, which many waiting jobs would ask, seldom.
            if holder is not None and time.monotonic() - asked > _ASK_SLURM_AGAIN_S:
                asked = time.monotonic()
                if not is_alive(holder, at_work=True):
                    holder = self.store.take_over(task.identity, holder, owner)
            if holder is None:
                # It may have been committed between the look and the claim.
                return self.store.find(task.identity) is None
            time.sleep(_LOOK_AGAIN_S)
        self.store.tidy(task.identity)
        return False

    def _run(self, task: Task) -> None:
        """Run a task, again if that can help, until it is committed."""
        while True:
            nodes = os.environ.get("SLURM_JOB_NODELIST")
            self.ledger.record("started", task=task.id, job=self.id, name=self.name, nodes=nodes, restart=self.restart)
            began = time.monotonic()
            attempt = prepare(task, self.site, self.store, self.submission.results)
            self._leave_if_told_to(task)
            hosts = self.warm.hosts_for(task, self._stopping)
            self._leave_if_told_to(task)
            keep = self.warm.serve_both(task, self._following(task))
            ahead = prepare_ahead(attempt, self.tasks, self.site, self.store, self.submission.results, this_job(self.id))
            with WorkAhead(ahead, self.site, self._release) as beside:
                stopping, give_up = self._stopping, self._give_up
                outcome = Step(attempt, self.site, stopping, give_up, hosts, self.failed, keep, beside.processes).run()
            seconds = time.monotonic() - began
            if outcome.code == 0:
                conclude(attempt, self.store, seconds)
                gpus = attempt.world_size * attempt.resources.gpus_per_rank
                self.ledger.record("done", task=task.id, job=self.id, seconds=round(seconds, 3), gpus=gpus)
                return
            self.failed += 1
            spend(attempt, seconds)
            self._leave_if_told_to(task)
            self._recover(task, attempt, outcome)

    def _following(self, task: Task) -> Task | None:
        """The next task that is not done, passing over those of a single process: they leave engines alone."""
        later = self.tasks[self.tasks.index(task) + 1 :]
        return next((one for one in later if one.parallel != "one" and self.store.find(one.identity) is None), None)

    def _release(self, task: Task) -> None:
        """Give up this job's claim on a task."""
        self.store.release(task.identity, this_job(self.id))

    def _stopping(self) -> bool:
        return self.time_is_up.is_set() or self.ended.is_set()

    def _give_up(self) -> bool:
        """Whether there is just time enough left to go back into the queue."""
        return self.time_is_up.is_set() and time.monotonic() - self.told_to_save > grace_s(self.site)

    def _recover(self, task: Task, attempt: Attempt, outcome: Outcome) -> None:
        """Return, after a wait if there has to be one, if the task is to be tried again in this job.

        Raises:
            SystemExit, _TaskFailed: it is not.
        """
        cause = outcome.cause or Cause.CODE_OR_DATA
        if cause is Cause.NODE_FAILURE and self._slurm_ends_it():
            self._leave_if_told_to(task)
        earlier = recovery.since_launch(self.ledger.of_launchers())
        change: dict[str, list[int]] = {}
        wait_s: float | None = None
        if cause is Cause.CUDA_OOM:
            change = lighten(attempt)
            again = bool(change)
        elif cause is Cause.HOST_OOM:
            again = not recovery.tried_before(earlier, task.id, cause)
        elif cause is Cause.UNAVAILABLE:
            wait_s = recovery.wait_s(earlier, task.id, self.id)
            again = wait_s is not None
        else:
            again = cause.is_chance and recovery.retries_spent(earlier, task.id) < self.site.slurm.retries
        if not again:
            self._fail(task, cause, outcome.reason)
        if cause is Cause.HOST_OOM and (memory := self._memory_mb()):
            change = {"mem_mb": [memory, 2 * memory]}
        self.ledger.record("retried", task=task.id, job=self.id, cause=cause, evidence=outcome.reason, change=change)
        if "mem_mb" in change:
            self._requeue(MinMemoryNode=str(change["mem_mb"][1]))
        while cause is Cause.LAUNCH_FAILURE and not queue.available():
            self._leave_if_told_to(task)
            time.sleep(_LOOK_AGAIN_S)
        until = time.monotonic() + (wait_s or 0.0)
        while (left := until - time.monotonic()) > 0:
            self._leave_if_told_to(task)
            time.sleep(min(left, _POLL_S))

    def _slurm_ends_it(self) -> bool:
        """Whether Slurm, which has noticed that a node is gone, ends the job to start it elsewhere."""
        return self.ended.wait(_SLURM_ENDS_IT_S)

    def _memory_mb(self) -> int | None:
        """What the job has per node; None if Slurm does not say."""
        try:
            asked = queue.show_job(self.id).get("MinMemoryNode", "")
        except queue.QueueError:
            return None
        number, unit = asked.rstrip("KMGT"), asked[-1:]
        factor = {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024**2}.get(unit, 1)
        return round(float(number) * factor) if number.replace(".", "", 1).isdigit() and float(number) else None

    def _fail(self, task: Task, cause: Cause, reason: str) -> NoReturn:
        self.ledger.record("failed", task=task.id, job=self.id, cause=cause, reason=reason)
        print(f"{task.id} failed: {reason}", file=sys.stderr, flush=True)
        if cause.is_of_the_task:
            # Another job that waits for it could itself be waited for.
            self._release(task)
            raise _TaskFailed(reason)
        remove_caches(os.environ["SLURM_JOB_ID"])
        raise SystemExit(1)


def _progress(work: Path) -> list[int] | None:
    """Done and total of a stage, over its ranks, as they said last."""
    reports = [orjson.loads(path.read_bytes()) for path in sorted(work.glob("progress-*.json"))]
    return [sum(report[index] for report in reports) for index in (0, 1)] if reports else None


def _job_id() -> str:
    """This job as Slurm's commands name it: ARRAY_TASK, or the plain id."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "none")

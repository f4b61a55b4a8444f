"""The driver of a Slurm job: does the job's tasks one after the other, each that needs several processes as a nested step.

submitit starts one driver per array task, on the first node. State is in the store alone: a driver that starts again, after a
requeue or in another job, passes over what is committed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from eva_hpc.cluster.execution import FAILURE, Attempt, conclude, prepare
from eva_hpc.cluster.ledger import Ledger
from eva_hpc.cluster.owners import is_alive
from eva_hpc.cluster.rendezvous import clean_environment, free_port, master_address, nested_step
from eva_hpc.config.site import Site
from eva_hpc.plan.plan import Plan, Task
from eva_hpc.store.artifacts import Store

_RENDEZVOUS_ATTEMPTS = 3
_LOOK_AGAIN_S = 5.0
_ASK_SLURM_AGAIN_S = 60.0
_PORT_TAKEN = ("EADDRINUSE", "address already in use", "Address already in use")


class Submission(BaseModel):
    """What a driver needs to know of the sweep it belongs to; written once, before the jobs are submitted."""

    model_config = ConfigDict(frozen=True)

    plan: Plan
    site: Site
    store: Path
    results: Path


@dataclass
class Driver:
    """What submitit pickles: where the submission is, and which tasks are this job's."""

    submission: Path
    name: str
    tasks: tuple[str, ...]

    def __call__(self) -> str:
        """Run the tasks; returns a word for submitit's own record.

        Raises:
            SystemExit: a task failed; the ledger, its log and ``work/failure.txt`` say why.
        """
        return _Job(Submission.model_validate_json(self.submission.read_bytes()), self.name).run(self.tasks)


class _Job:
    def __init__(self, submission: Submission, name: str) -> None:
        self.submission = submission
        self.name = name
        self.store = Store(submission.store)
        self.ledger = Ledger(submission.results, f"job-{_job_id()}")
        # Steps get these signals from Slurm themselves; the driver must outlive them. USR2 says that the time is nearly over:
        # save and go on later. TERM says that Slurm ends the job: by the user's scancel, which must not be undone, or to
        # preempt it, which Slurm follows up by itself if the driver is still there.
        self.time_is_up = threading.Event()
        self.ended = threading.Event()
        signal.signal(signal.SIGUSR2, lambda *_: self.time_is_up.set())
        signal.signal(signal.SIGTERM, lambda *_: self.ended.set())

    def run(self, tasks: tuple[str, ...]) -> str:
        for name in tasks:
            task = self.submission.plan.by_id[name]
            try:
                if self._is_ours_to_do(task):
                    self._run(task)
            except Exception as error:
                self._fail(task, f"{type(error).__name__}: {error}")
        return "done"

    def _is_ours_to_do(self, task: Task) -> bool:
        """False once the artifact is committed, True once this job has claimed it; until then another job is at it."""
        owner = f"slurm {_job_id()}"
        asked = -_ASK_SLURM_AGAIN_S
        while self.store.find(task.identity) is None:
            self._leave_if_told_to(task)
            holder = self.store.claim(task.identity, owner)
            # Files are looked at often; Slurm, which many waiting jobs would ask, seldom.
            if holder is not None and time.monotonic() - asked > _ASK_SLURM_AGAIN_S:
                asked = time.monotonic()
                if not is_alive(holder):
                    holder = self.store.take_over(task.identity, holder, owner)
            if holder is None:
                # It may have been committed between the look and the claim.
                return self.store.find(task.identity) is None
            time.sleep(_LOOK_AGAIN_S)
        return False

    def _leave_if_told_to(self, task: Task) -> None:
        if self.time_is_up.is_set():
            self._requeue(task)
        if self.ended.is_set():
            self._await_the_end(task)

    def _run(self, task: Task) -> None:
        job = _job_id()
        self.ledger.record("started", task=task.id, job=job, name=self.name, nodes=os.environ.get("SLURM_JOB_NODELIST"))
        began = time.monotonic()
        attempt = prepare(task, self.submission.site, self.store, self.submission.results)
        code = self._run_processes(attempt)
        if code == 0:
            conclude(attempt, self.store, time.monotonic() - began)
            self.ledger.record("done", task=task.id, job=job, seconds=round(time.monotonic() - began, 3))
            return
        self._leave_if_told_to(task)
        path = attempt.work / FAILURE
        self._fail(task, path.read_text() if path.exists() else f"its processes ended with code {code}")

    def _run_processes(self, attempt: Attempt) -> int:
        """Exit code of the task's processes; SAVED if they can go on later."""
        file = attempt.work / "attempt.json"
        file.write_text(attempt.model_dump_json())
        command = [sys.executable, "-u", "-m", "eva_hpc.cluster.worker", str(file)]
        environment = clean_environment(os.environ) | attempt.environment
        if attempt.task.parallel == "one":
            return self._wait(command, environment, attempt.log)
        need = attempt.resources
        step = nested_step(
            command,
            nodes=need.nodes,
            ranks_per_node=need.ranks_per_node,
            gpus_per_node=need.ranks_per_node * need.gpus_per_rank,
            cpus_per_rank=need.threads,
            gpu_type=self.submission.site.slurm.gpu_type,
        )
        if attempt.task.parallel == "ranks":
            environment["MASTER_ADDR"] = master_address()
        code = 1
        for _ in range(_RENDEZVOUS_ATTEMPTS):
            environment["MASTER_PORT"] = str(free_port())
            start = attempt.log.stat().st_size if attempt.log.exists() else 0
            code = self._wait(step, environment, attempt.log)
            with attempt.log.open("rb") as log:
                log.seek(start)
                said = log.read().decode(errors="replace")
            if code == 0 or not any(words in said for words in _PORT_TAKEN):
                break
            (attempt.work / FAILURE).unlink(missing_ok=True)
        return code

    def _wait(self, command: list[str], environment: dict[str, str], log: Path) -> int:
        with log.open("ab") as file:
            process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment, start_new_session=True)
            while True:
                try:
                    return process.wait(timeout=1.0)
                except subprocess.TimeoutExpired:
                    if (self.time_is_up.is_set() or self.ended.is_set()) and command[0] == sys.executable:
                        process.send_signal(signal.SIGTERM)

    def _requeue(self, task: Task) -> None:
        """Put the job back into the queue; Slurm ends this process."""
        self.ledger.record("requeued", task=task.id, job=_job_id())
        subprocess.run(["scontrol", "requeue", _job_id()], check=False, timeout=60)
        self._await_the_end(task)

    def _await_the_end(self, task: Task) -> None:
        """Stay until Slurm kills this process: leaving early would make a failure of what is none."""
        self.ledger.record("ended", task=task.id, job=_job_id())
        while True:
            signal.pause()

    def _fail(self, task: Task, reason: str) -> None:
        work = self.store.work(task.identity)
        work.mkdir(parents=True, exist_ok=True)
        (work / FAILURE).write_text(reason)
        self.ledger.record("failed", task=task.id, job=_job_id(), reason=reason)
        print(f"{task.id} failed: {reason}", file=sys.stderr, flush=True)
        raise SystemExit(1)


def _job_id() -> str:
    """This job as Slurm's commands name it: ARRAY_TASK, or the plain id."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "none")

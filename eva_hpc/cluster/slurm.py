"""Slurm: arrays of jobs through submitit, and watching them from files first, then one squeue per refresh."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from eva_hpc.cluster import queue
from eva_hpc.cluster.board import Board, State
from eva_hpc.cluster.driver import Driver, Submission
from eva_hpc.cluster.execution import FAILURE, log_path
from eva_hpc.cluster.ledger import Ledger
from eva_hpc.config.errors import ConfigError
from eva_hpc.config.site import Site
from eva_hpc.plan.jobs import Array, make_arrays, make_jobs
from eva_hpc.plan.plan import Task
from eva_hpc.store.artifacts import Store, write_atomically
from eva_hpc.store.keys import digest

_REFRESH_S = 2.0
_UNSEEN_REFRESHES = 3
"""Refreshes that a job may be missing from the queue before what it left undone counts as failed: files lag behind."""


_CONTROLLER_AWAY = ("Unable to contact", "Socket timed out", "Communication connection failure")


class SlurmSweep:
    """The jobs of one plan on one cluster."""

    def __init__(self, board: Board, site: Site, store: Store, results: Path) -> None:
        self.board = board
        self.plan = board.plan
        self.site = site
        self.store = store
        self.results = results
        self.ledger = Ledger(results)

    def active(self) -> dict[str, str]:
        """Job id by task id, for the tasks of jobs that an earlier call submitted and that have not ended.

        Raises:
            ControllerAway: Slurm does not answer.
        """
        jobs = {event["job"]: event["tasks"] for event in self.ledger.events() if event["event"] == "submitted"}
        alive = queue.squeue(jobs)
        return {task: job for job, tasks in jobs.items() if job in alive for task in tasks}

    def submit(self, pending: Sequence[Task]) -> dict[str, str]:
        """Submit jobs for the tasks that no active job will do; returns job ids by task id, active ones included.

        Raises:
            ConfigError: sbatch refused what the site file asks for; arrays submitted before stay.
            ControllerAway: Slurm does not answer.
        """
        import submitit

        active = self.active()
        owners = {task: job for task, job in active.items() if task in {one.id for one in pending}}
        jobs = make_jobs(self.plan, [task for task in pending if task.id not in owners])
        arrays = make_arrays(self.plan, jobs, self.site, queue.max_array_size() if jobs else 1)
        submission = self._write_submission() if arrays else None
        for array in arrays:
            assert submission is not None
            after = self._parents(array, owners)
            executor = make_executor(array, self.site, self.results, self.plan.name, after)
            drivers = [Driver(submission, job.name, job.tasks) for job in array.jobs]
            try:
                with executor.batch():
                    submitted = [executor.submit(driver) for driver in drivers]
            except submitit.core.utils.FailedJobError as error:
                if any(words in str(error) for words in _CONTROLLER_AWAY):
                    raise queue.ControllerAway(str(error)) from None
                raise ConfigError(f"site {self.site.name}: sbatch refused array {array.name}: {error}") from None
            for job, driver in zip(submitted, drivers, strict=True):
                self.ledger.record("submitted", job=job.job_id, name=driver.name, array=array.name, tasks=list(driver.tasks))
                owners |= dict.fromkeys(driver.tasks, job.job_id)
        return owners

    def watch(self, owners: dict[str, str]) -> None:
        """Keep the board up to date until every task with a job is committed or its job has ended.

        A job that is gone from the queue without its artifacts has failed; what it said is the reason.
        """
        waiting = {name: self.plan.by_id[name] for name in owners}
        unseen: dict[str, int] = {}
        while waiting:
            for name, task in list(waiting.items()):
                if self.board.entries[name].state is State.BLOCKED:
                    del waiting[name]
                elif (artifact := self.store.find(task.identity)) is not None:
                    self.board.finished(task, artifact.manifest["seconds"])
                    del waiting[name]
            jobs = {owners[name] for name in waiting}
            try:
                alive = queue.squeue(jobs)
            except queue.QueueError as error:
                self.board.note = f"Slurm does not answer, trying again ({error})"
                time.sleep(_REFRESH_S)
                continue
            self.board.note = _waiting(alive)
            for job in jobs:
                unseen[job] = 0 if job in alive else unseen.get(job, 0) + 1
            for name, task in list(waiting.items()):
                job = owners[name]
                work = self.store.work(task.identity)
                running = job in alive and alive[job].state == "RUNNING"
                if running and (work / "attempt.json").exists() and self.board.entries[name].state is State.PENDING:
                    self.board.started(task, log_path(self.results, task), work)
            for job in jobs:
                if unseen[job] >= _UNSEEN_REFRESHES:
                    first, *rest = [task for name, task in waiting.items() if owners[name] == job]
                    self.board.failed(first, self._why(first, job))
                    for task in rest:
                        self.board.set(task, State.BLOCKED)
                    waiting = {name: task for name, task in waiting.items() if owners[name] != job}
            if waiting:
                time.sleep(_REFRESH_S)

    def _why(self, task: Task, job: str) -> str:
        path = self.store.work(task.identity) / FAILURE
        if path.exists():
            return path.read_text()
        error = self.results / "slurm" / f"{job}_0_log.err"
        lines = error.read_text(errors="replace").strip().splitlines() if error.exists() else []
        said = [line for line in lines if not line.startswith("srun:")]
        return f"job {job} ended without doing it{': ' + said[-1] if said else ''}"

    def _parents(self, array: Array, owners: dict[str, str]) -> list[str]:
        """Ids of the jobs that an array must wait for: those doing what its tasks read."""
        own = {name for job in array.jobs for name in job.tasks}
        parents = (parent.id for name in own for parent in self.plan.parents(self.plan.by_id[name]) if parent.id not in own)
        return sorted({owners[parent] for parent in parents if parent in owners})

    def _write_submission(self) -> Path:
        """Write what the drivers read, under a name that depends on its content: a later submission does not change it."""
        submission = Submission(
            plan=self.plan, site=self.site, store=self.store.root.absolute(), results=self.results.absolute()
        )
        content = submission.model_dump_json().encode()
        path = self.results.absolute() / "slurm" / f"plan-{digest(orjson.loads(content))}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
        return path


def _waiting(jobs: Mapping[str, queue.QueueEntry]) -> str:
    """How many jobs wait, and what for, in Slurm's words."""
    reasons = Counter(entry.reason for entry in jobs.values() if entry.state == "PENDING")
    return ", ".join(f"{count} waiting ({reason})" for reason, count in reasons.most_common(3))


def make_executor(array: Array, site: Site, results: Path, name: str, after: Iterable[str] = ()) -> Any:
    """The submitit executor for an array."""
    import submitit

    executor = submitit.SlurmExecutor(folder=results / "slurm", python=sys.executable)
    executor.update_parameters(**parameters(array, site, name, after))
    return executor


def parameters(array: Array, site: Site, name: str, after: Iterable[str] = ()) -> dict[str, Any]:
    """What submitit is asked for: one driver step per job, resources for the widest stage.

    The jobs wait for `after` to end in whatever way: a driver checks for itself whether what it reads is there, so that one
    failed shared stage does not hold the runs that do not need it.
    """
    slurm, shape = site.slurm, array.shape
    additional: dict[str, str | int | bool] = {"requeue": True, **slurm.additional}
    if shape.gpus_per_node:
        kind = f"{slurm.gpu_type}:" if slurm.gpu_type else ""
        additional["gres"] = f"gpu:{kind}{shape.gpus_per_node}"
    if after := list(after):
        additional["dependency"] = "afterany:" + ":".join(after)
    options: dict[str, Any] = {
        "job_name": f"{name}:{array.name}",
        "partition": slurm.partition,
        "account": slurm.account,
        "qos": slurm.qos,
        "constraint": slurm.constraint,
        "time": slurm.time_minutes,
        "nodes": shape.nodes,
        "ntasks_per_node": 1,
        "cpus_per_task": max(shape.cpus_per_node, slurm.cpus_per_node or 0),
        "mem": f"{round(slurm.mem_gb * 1024)}M" if slurm.mem_gb else None,
        "signal_delay_s": slurm.signal_delay_s,
        "array_parallelism": slurm.max_parallel,
        "setup": [*slurm.setup, *(f"export {key}={shlex.quote(value)}" for key, value in site.environment.items())] or None,
        "srun_args": ["--overlap", "--nodes=1", "--ntasks=1"],
        "additional_parameters": additional,
    }
    # submitit's own wckey is refused by some clusters: None leaves it out, unless the site sets one.
    return {key: value for key, value in options.items() if value is not None} | {"wckey": None}


def submission_text(array: Array, site: Site, results: Path, name: str) -> str:
    """The sbatch script of an array, exactly as submitit will submit it; in place of ids not yet known stand arrays' names."""
    executor = make_executor(array, site, results, name, after=[f"<{parent}>" for parent in array.after])
    if len(array.jobs) > 1:
        executor.parameters["map_count"] = len(array.jobs)
    return str(executor._make_submission_file_text(executor._submitit_command_str, "dry-run"))


def without_own_job() -> None:
    """Forget the job this process itself runs in, if it does, so that what it submits does not inherit its limits."""
    if "SLURM_JOB_ID" not in os.environ:
        return
    for variable in [key for key in os.environ if key.startswith(("SLURM_", "SBATCH_", "SRUN_")) and key != "SLURM_CONF"]:
        del os.environ[variable]

"""The processes of one attempt inside a Slurm job.

They are forked from the hosts of the job (hosts.py). Without hosts they are a nested step, or a plain child of the driver if
there is only one.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from eva_hpc.cluster.causes import Cause, cause_of_log
from eva_hpc.cluster.execution import Attempt, grace_s, logs_of
from eva_hpc.cluster.failure import first_failure, forget_failures
from eva_hpc.cluster.hosts import Hosts
from eva_hpc.cluster.node_local import rendezvous_port
from eva_hpc.cluster.rendezvous import clean_environment, master_address, nested_step
from eva_hpc.cluster.software import command_in, srun_options
from eva_hpc.cluster.worker import AHEAD
from eva_hpc.config.site import Site
from eva_hpc.plan.plan import Task

_RENDEZVOUS_ATTEMPTS = 3
_PORT_TAKEN = ("EADDRINUSE", "address already in use", "Address already in use")
_LOOK_EVERY_S = 30.0
_KILL_AFTER_S = 15.0
_SAID_CHARS = 20_000
_ATTEMPT, _ATTEMPT_AHEAD = "attempt.json", "attempt.ahead.json"


@dataclass(frozen=True)
class Outcome:
    """How the processes ended: their exit code and, if they failed, why and what they said of it."""

    code: int
    cause: Cause | None = None
    reason: str = ""


class Processes(Protocol):
    """What runs an attempt, however it was started. `hears_slurm`: it is told by Slurm alone when the job is to end."""

    hears_slurm: bool

    def wait(self, timeout_s: float) -> int | None:
        """Exit code, 0 if all ended well; None if they have not ended within this time."""

    def stop(self) -> None:
        """Tell them to save and leave."""

    def kill(self) -> None:
        """Kill them."""


class Step:
    """One attempt's processes.

    Args:
        attempt: what to run.
        site: where.
        stopping: whether the job was told to save, or to end.
        give_up: whether the time for saving is over; the processes are left to Slurm then.
        hosts: where to fork them, if anywhere.
        failed: how many attempts of this job have failed before.
        keep: whether hosts are to keep its ranks and their engines for the attempt that follows.
        beside: others that are told to stop with it.
    """

    def __init__(
        self,
        attempt: Attempt,
        site: Site,
        stopping: Callable[[], bool],
        give_up: Callable[[], bool],
        hosts: Hosts | None = None,
        failed: int = 0,
        keep: bool = False,
        beside: Sequence[Processes] = (),
    ) -> None:
        self.attempt = attempt
        self.site = site
        self.stopping = stopping
        self.give_up = give_up
        self.hosts = hosts
        self.failed = failed
        self.keep = keep
        self.beside = beside
        self.hung = False

    def run(self) -> Outcome:
        """Start the processes and wait for them; a port that somebody else took is not their failure."""
        attempt = self.attempt
        (attempt.work / _ATTEMPT).write_text(attempt.model_dump_json())
        for _ in range(_RENDEZVOUS_ATTEMPTS):
            port = rendezvous_port(os.environ["SLURM_JOB_ID"])
            starts = {path: path.stat().st_size for path in logs_of(attempt.log)}
            code = self._wait(self._start((master_address(), port) if attempt.task.parallel == "ranks" else None))
            said = _said(attempt, starts)
            if code == 0 or self.stopping() or not any(words in said for words in _PORT_TAKEN):
                break
            forget_failures(attempt.work)
        return Outcome(0) if code == 0 else self._explain(code, said)

    def _start(self, master: tuple[str, int] | None) -> Processes:
        if self.hosts is not None and not self.hosts.have_ended():
            return self.hosts.start(self.attempt, master, self.failed, keep=self.keep)
        meeting = {"MASTER_ADDR": master[0], "MASTER_PORT": str(master[1])} if master else {}
        return _start(self.attempt, self.site, [str(self.attempt.work / _ATTEMPT)], meeting)

    def _explain(self, code: int, said: str) -> Outcome:
        if self.hung:
            minutes = self.site.engine.hang_minutes
            return Outcome(
                code, Cause.HUNG, f"no sign of life in {minutes:g} minutes: no log line, progress, chunk or checkpoint"
            )
        by_log, line = cause_of_log(code, said)
        failure = first_failure(self.attempt.work)
        # A rank that Slurm or the kernel killed leaves no word; its partners then complain of lost connections.
        if failure is None or (failure.cause is Cause.PEER_LOST and by_log is not Cause.CODE_OR_DATA):
            return Outcome(code, by_log, line)
        return Outcome(code, failure.cause, failure.reason)

    def _wait(self, processes: Processes) -> int:
        """Exit code of the processes. Ends them when they show no sign of life for too long."""
        looked = alive = time.monotonic()
        sign, told = 0.0, 0.0
        while True:
            code = processes.wait(1.0)
            if code is not None:
                return code
            now = time.monotonic()
            if self.stopping():
                for told_here in (processes, *self.beside):
                    if not told_here.hears_slurm:
                        told_here.stop()
            if self.give_up():
                return 1
            if now - looked > _LOOK_EVERY_S:
                looked = now
                before, sign = sign, _last_sign_of_life(self.attempt)
                # Times of files are another machine's: only whether they change counts.
                alive = now if sign != before else alive
                self.hung = self.hung or now - alive > 60 * self.site.engine.hang_minutes
            if self.hung:
                # srun ends its step on TERM; killed at once it would leave the ranks running. Others may have requests in
                # flight that are paid for: they have the time that they have for saving.
                told = told or now
                patience = _KILL_AFTER_S if processes.hears_slurm else max(_KILL_AFTER_S, self.attempt.grace_s)
                if now - told < patience:
                    processes.stop()
                else:
                    processes.kill()


class WorkAhead:
    """Stages that work ahead while the one runs whose records they take up; of use in a ``with`` block.

    Args:
        attempts: at them.
        site: where.
        ended: called for each with its task once its process is gone.
    """

    def __init__(self, attempts: Sequence[Attempt], site: Site, ended: Callable[[Task], object]) -> None:
        self.processes: list[Processes] = []
        self._attempts = attempts
        self._site = site
        self._ended = ended

    def __enter__(self) -> WorkAhead:
        try:
            for attempt in self._attempts:
                path = attempt.work / _ATTEMPT_AHEAD
                path.write_text(attempt.model_dump_json())
                self.processes.append(_start(attempt, self._site, [str(path), AHEAD], {}))
        except OSError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        """Requests in flight are paid for: their answers are waited for as long as a stage has for saving."""
        for process in self.processes:
            process.stop()
        until = time.monotonic() + grace_s(self._site)
        for process in self.processes:
            if process.wait(max(0.0, until - time.monotonic())) is None:
                process.kill()
        for attempt in self._attempts:
            self._ended(attempt.task)


def _start(attempt: Attempt, site: Site, words: Sequence[str], meeting: Mapping[str, str]) -> _Command:
    """Start the processes of an attempt without hosts; `words` are those of worker.py's command."""
    software = site.software_of(attempt.task.stage)
    root = Path(site.root).absolute()
    command = command_in(software, ["-m", "eva_hpc.cluster.worker", *words], [root])
    options = srun_options(software, [root])
    if attempt.task.parallel != "one" or options:
        need = attempt.resources
        command = nested_step(
            command,
            nodes=need.nodes,
            ranks_per_node=need.ranks_per_node,
            gpus_per_node=need.ranks_per_node * need.gpus_per_rank,
            cpus_per_rank=need.threads,
            gpu_type=site.job_options(attempt.task.stage).gpu_type,
            options=options,
        )
    return _Command(command, clean_environment(os.environ) | attempt.environment | meeting, attempt.log)


class _Command:
    """A command with its output in a log; see `Processes`."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path) -> None:
        self.hears_slurm = command[0] == "srun"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )

    def wait(self, timeout_s: float) -> int | None:
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def stop(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


def _said(attempt: Attempt, starts: Mapping[Path, int]) -> str:
    """The end of what the logs of an attempt have more than at its start."""
    said = b""
    for path in logs_of(attempt.log):
        with path.open("rb") as log:
            log.seek(max(starts.get(path, 0), path.stat().st_size - _SAID_CHARS))
            said += log.read()
    return said.decode(errors="replace")


def _last_sign_of_life(attempt: Attempt) -> float:
    """When a rank last wrote anything: a line of log, progress, a chunk, a file of a checkpoint; by the clock of the files."""
    latest = 0.0
    for path in [*logs_of(attempt.log), *attempt.work.rglob("*")]:
        try:
            latest = max(latest, path.stat().st_mtime)
        except FileNotFoundError:  # pruned meanwhile
            continue
    return latest

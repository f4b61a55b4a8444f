"""The processes of one attempt inside a Slurm job: as a nested step, or as a plain child of the driver if there is only one."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from eva_hpc.cluster.causes import Cause, cause_of_log
from eva_hpc.cluster.execution import Attempt
from eva_hpc.cluster.failure import first_failure, forget_failures
from eva_hpc.cluster.node_local import rendezvous_port
from eva_hpc.cluster.rendezvous import clean_environment, master_address, nested_step
from eva_hpc.cluster.software import command_in, srun_options
from eva_hpc.config.site import Site

_RENDEZVOUS_ATTEMPTS = 3
_PORT_TAKEN = ("EADDRINUSE", "address already in use", "Address already in use")
_LOOK_EVERY_S = 30.0
_KILL_AFTER_S = 15.0
_SAID_CHARS = 20_000


@dataclass(frozen=True)
class Outcome:
    """How the processes ended: their exit code and, if they failed, why and what they said of it."""

    code: int
    cause: Cause | None = None
    reason: str = ""


class Step:
    """One attempt's processes.

    Args:
        attempt: what to run.
        site: where.
        stopping: whether the job was told to save, or to end; a step is told by Slurm, a plain child is told here.
        give_up: whether the time for saving is over; the processes are left to Slurm then.
    """

    def __init__(self, attempt: Attempt, site: Site, stopping: Callable[[], bool], give_up: Callable[[], bool]) -> None:
        self.attempt = attempt
        self.site = site
        self.stopping = stopping
        self.give_up = give_up
        self.hung = False

    def run(self) -> Outcome:
        """Start the processes and wait for them; a port that somebody else took is not their failure."""
        attempt = self.attempt
        file = attempt.work / "attempt.json"
        file.write_text(attempt.model_dump_json())
        software = self.site.software_of(attempt.task.stage)
        root = Path(self.site.root).absolute()
        command = command_in(software, ["-m", "eva_hpc.cluster.worker", str(file)], [root])
        environment = clean_environment(os.environ) | attempt.environment
        options = srun_options(software, [root])
        if attempt.task.parallel != "one" or options:
            need = attempt.resources
            command = nested_step(
                command,
                nodes=need.nodes,
                ranks_per_node=need.ranks_per_node,
                gpus_per_node=need.ranks_per_node * need.gpus_per_rank,
                cpus_per_rank=need.threads,
                gpu_type=self.site.job_options(attempt.task.stage).gpu_type,
                options=options,
            )
        if attempt.task.parallel == "ranks":
            environment["MASTER_ADDR"] = master_address()
        for _ in range(_RENDEZVOUS_ATTEMPTS):
            environment["MASTER_PORT"] = str(rendezvous_port(os.environ["SLURM_JOB_ID"]))
            start = attempt.log.stat().st_size if attempt.log.exists() else 0
            code = self._wait(command, environment)
            said = self._said(start)
            if code == 0 or self.stopping() or not any(words in said for words in _PORT_TAKEN):
                break
            forget_failures(attempt.work)
        return Outcome(0) if code == 0 else self._explain(code, said)

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

    def _wait(self, command: list[str], environment: dict[str, str]) -> int:
        """Exit code of the command. Ends it when it shows no sign of life for too long."""
        is_step = command[0] == "srun"
        looked = alive = time.monotonic()
        sign, told = 0.0, 0.0
        with self.attempt.log.open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True)
            while True:
                try:
                    return process.wait(timeout=1.0)
                except subprocess.TimeoutExpired:
                    now = time.monotonic()
                if self.stopping() and not is_step:
                    process.send_signal(signal.SIGTERM)
                if self.give_up():
                    return 1
                if now - looked > _LOOK_EVERY_S:
                    looked = now
                    before, sign = sign, _last_sign_of_life(self.attempt)
                    # Times of files are another machine's: only whether they change counts.
                    alive = now if sign != before else alive
                    self.hung = self.hung or now - alive > 60 * self.site.engine.hang_minutes
                if self.hung:
                    # srun ends its step on TERM; killed at once it would leave the ranks running. A plain child may have
                    # requests in flight that are paid for: it has the time that it has for saving.
                    told = told or now
                    patience = _KILL_AFTER_S if is_step else max(_KILL_AFTER_S, self.attempt.grace_s)
                    process.send_signal(signal.SIGTERM if now - told < patience else signal.SIGKILL)

    def _said(self, start: int) -> str:
        with self.attempt.log.open("rb") as log:
            log.seek(max(start, self.attempt.log.stat().st_size - _SAID_CHARS))
            return log.read().decode(errors="replace")


def _last_sign_of_life(attempt: Attempt) -> float:
    """When a rank last wrote anything: a line of log, progress, a chunk, a file of a checkpoint; by the clock of the files."""
    latest = 0.0
    for path in [attempt.log, *attempt.work.rglob("*")]:
        try:
            latest = max(latest, path.stat().st_mtime)
        except FileNotFoundError:  # pruned meanwhile
            continue
    return latest

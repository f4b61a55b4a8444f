"""Warm starts in a Slurm job, the driver's side: one srun starts a host on every node, and stages are forked from there.

    warm = WarmStarts(site, tasks, note)
    warm.expect(task)                            # imports begin while the driver still looks at inputs
    hosts = warm.hosts_for(task, stopping)       # None: start it by an srun of its own
    ranks = hosts.start(attempt, master, failed, keep=warm.serve_both(task, following))
    warm.close()

Every software environment has hosts of its own; so have stages that use vLLM, because importing it changes settings of torch.
What the hosts' srun says is kept for the log of the stage that runs: it is how Slurm tells of nodes and memory.
"""

from __future__ import annotations

import contextlib
import os
import queue as queues
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel

from eva_hpc.cluster import queue
from eva_hpc.cluster.causes import Cause, cause_of_log
from eva_hpc.cluster.execution import Attempt, environment_of, rank_log
from eva_hpc.cluster.host import MARK
from eva_hpc.cluster.rendezvous import clean_environment, nested_step
from eva_hpc.cluster.software import command_in, srun_options
from eva_hpc.config.site import Site
from eva_hpc.plan.jobs import engine_of, task_resources
from eva_hpc.plan.plan import Task
from eva_hpc.stages.contract import SAVED
from eva_hpc.store.keys import digest

_READY_S = 600.0
_MOST_STARTS = 3
_KILLED_S = 30.0
_LEAVE_S = 10.0
_LOOK_S = 1.0


class WarmStarts:
    """The hosts of a job, started when they are needed first.

    Args:
        site: where the job runs.
        tasks: all that the job may do; hosts get what the widest of them needs.
        note: told why stages start without hosts, if so.
    """

    def __init__(self, site: Site, tasks: Sequence[Task], note: Callable[[str], object]) -> None:
        self._site = site
        self._note = note
        needs = [task_resources(task, site) for task in tasks]
        self._nodes = max(need.nodes for need in needs)
        self._cpus = max(need.ranks_per_node * need.threads for need in needs)
        self._gpus = max(need.ranks_per_node * need.gpus_per_rank for need in needs)
        self._hosts: dict[tuple[str, bool], Hosts] = {}
        self._starts: dict[tuple[str, bool], int] = {}

    def expect(self, tasks: Iterable[Task]) -> None:
        """Start the hosts of the first of these tasks that is to be run by any."""
        for task in tasks:
            if self.wants_hosts(task):
                self._start(task)
                return

    def hosts_for(self, task: Task, stopping: Callable[[], bool]) -> Hosts | None:
        """Hosts that are ready for a task, after the time they take for their imports; None if it is to start without.

        Engines that other hosts have kept are gone then, unless the task is one process.
        """
        hosts = self._ready_for(task, stopping)
        if task.parallel != "one":
            for others in self._hosts.values():
                if others is not hosts:
                    others.release()
        return hosts

    def serve_both(self, task: Task, following: Task | None) -> bool:
        """Whether the ranks and engines of a task can go on with the one that follows it."""
        engine = engine_of(task, self._site)
        return engine is not None and following is not None and engine == engine_of(following, self._site)

    def _ready_for(self, task: Task, stopping: Callable[[], bool]) -> Hosts | None:
        if not self.wants_hosts(task):
            ready = (hosts for key, hosts in self._hosts.items() if key[0] == self._software(task) and hosts.are_ready(1))
            return next(ready, None) if task.parallel == "one" else None
        hosts = self._start(task)
        if hosts is None:
            return None
        until = time.monotonic() + _READY_S
        while not hosts.are_ready(task_resources(task, self._site).nodes):
            if stopping():
                return None
            if hosts.have_ended() or time.monotonic() > until:
                reason = hosts.unfit or hosts.last_words() or f"they were not ready after {_READY_S:g} s"
                if cause_of_log(1, reason)[0] is not Cause.LAUNCH_FAILURE:  # else it may work the next time
                    self._starts[self._key(task)] = _MOST_STARTS
                self._note(f"hosts did not come up, stages start without: {reason}")
                hosts.close()
                del self._hosts[self._key(task)]
                return None
            hosts.listen(_LOOK_S)
        return hosts

    def close(self) -> None:
        """End all hosts."""
        for hosts in self._hosts.values():
            hosts.close()

    def wants_hosts(self, task: Task) -> bool:
        """Whether a task is worth it: one process alone imports little."""
        if not self._site.slurm.warm_start or task.parallel == "one":
            return False
        # DeepSpeed has decided for GPUs when it was imported where there are some.
        return task.parallel != "ranks" or not self._gpus or task_resources(task, self._site).gpus_per_rank > 0

    def _software(self, task: Task) -> str:
        return self._site.software_of(task.stage).model_dump_json()

    def _key(self, task: Task) -> tuple[str, bool]:
        return self._software(task), uses_vllm(task.spec)

    def _start(self, task: Task) -> Hosts | None:
        """The hosts that a task needs, started again if they have ended; None if that was too often."""
        key = self._key(task)
        hosts = self._hosts.get(key)
        if hosts is not None and hosts.have_ended():
            hosts.close()
            del self._hosts[key]
            hosts = None
            if self._starts[key] == _MOST_STARTS:
                self._note(f"hosts have ended {_MOST_STARTS} times, stages start without")
        if hosts is None and self._starts.get(key, 0) < _MOST_STARTS:
            self._starts[key] = self._starts.get(key, 0) + 1
            hosts = self._hosts[key] = Hosts(self._command(task), self._environment())
        return hosts

    def _command(self, task: Task) -> list[str]:
        software = self._site.software_of(task.stage)
        root = Path(self._site.root).absolute()
        arguments = ["-m", "eva_hpc.cluster.host", *(["vllm"] if uses_vllm(task.spec) else [])]
        return nested_step(
            command_in(software, arguments, [root]),
            nodes=self._nodes,
            ranks_per_node=1,
            gpus_per_node=self._gpus,
            cpus_per_rank=self._cpus,
            gpu_type=self._site.job_options(task.stage).gpu_type,
            options=srun_options(software, [root]),
            talks=True,
        )

    def _environment(self) -> dict[str, str]:
        return clean_environment(os.environ) | environment_of(self._site)


class Hosts:
    """One srun with a host on each node. It does one attempt after the other.

    Attributes:
        unfit: why a host cannot fork, if so.
    """

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        self.unfit = ""
        self._words = tempfile.TemporaryFile()  # noqa: SIM115
        self._told = 0
        self._srun = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            start_new_session=True,
        )
        self._ready: set[int] = set()
        self._step = ""
        self._runs = 0
        self._keep = False
        self._closed = False
        self._messages: queues.Queue[dict[str, Any] | None] = queues.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def are_ready(self, nodes: int) -> bool:
        """Whether the first `nodes` of them have imported all and wait for work. Not to be asked while they are at work."""
        while self.listen(0.0) is not None:
            continue
        return not self.have_ended() and self._ready >= set(range(nodes))

    def have_ended(self) -> bool:
        """Whether their srun has ended, or is being ended."""
        return self._closed or bool(self.unfit) or self._srun.poll() is not None

    def listen(self, timeout_s: float) -> dict[str, Any] | None:
        """The next that one of them says of a run; None if none does in this time, or if they have ended."""
        try:
            message = self._messages.get(timeout=timeout_s)
        except queues.Empty:
            return None
        if message is None:
            # The reader has nothing more to say: srun ends, or has.
            self._messages.put(None)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._srun.wait(timeout_s)
            return None
        if message["said"] == "ready":
            self._ready.add(message["node"])
            self._step = message["step"]
            _say(f"{message['name']}: host {message['pid']} is ready after {message['seconds']} s\n".encode())
        elif message["said"] == "unfit":
            self.unfit = message["why"]
        return message

    def start(self, attempt: Attempt, master: tuple[str, int] | None, failed: int, *, keep: bool = False) -> ForkedRanks:
        """Start the ranks of an attempt.

        Args:
            attempt: whose.
            master: where rank 0 is to listen, if ranks meet.
            failed: how many attempts of this job have failed before.
            keep: whether its ranks and their engines are to stay for the next attempt.
        """
        self._runs += 1
        self._keep = keep or (self._keep and attempt.task.parallel == "one")
        _say(self.words())  # of their imports
        self.tell(
            do="run",
            run=self._runs,
            attempt=attempt.model_dump(mode="json"),
            master=master,
            failed=failed,
            engine=_engine(attempt),
            keep=keep,
        )
        return ForkedRanks(self, self._runs, attempt)

    def release(self) -> None:
        """End the ranks that were kept; returns once their memory is free, or they themselves have ended."""
        if not self._keep:
            return
        self._keep = False
        self.tell(do="release")
        released: set[int] = set()
        until = time.monotonic() + _KILLED_S
        while not released >= self._ready and not self.have_ended():
            message = self.listen(_LOOK_S)
            if message is not None and message["said"] == "released":
                released.add(message["node"])
            elif time.monotonic() > until:
                self.end()

    def tell(self, **message: Any) -> None:
        """Send a message to all; they may be gone."""
        assert self._srun.stdin is not None
        with contextlib.suppress(BrokenPipeError, ValueError):
            self._srun.stdin.write(orjson.dumps(message) + b"\n")
            self._srun.stdin.flush()

    def code(self) -> int:
        """How their srun ended."""
        return self._srun.returncode or 1

    def words(self) -> bytes:
        """What srun and the hosts have said, from where this was asked last."""
        size = os.fstat(self._words.fileno()).st_size
        new = os.pread(self._words.fileno(), size - self._told, self._told)
        self._told += len(new)
        return new

    def last_words(self) -> str:
        """The last lines of what they have said."""
        size = os.fstat(self._words.fileno()).st_size
        lines = os.pread(self._words.fileno(), 4000, max(0, size - 4000)).decode(errors="replace").split("\n")
        return " | ".join([line.strip() for line in lines if line.strip()][-3:])

    def close(self) -> None:
        """End them; what they still have to say goes into the log of the job."""
        self.end()
        _say(self.words())

    def end(self) -> None:
        """End them: they leave when nobody talks to them any more; those that do not are killed by Slurm."""
        if self._closed:
            return
        self._closed = True
        assert self._srun.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._srun.stdin.close()
        gone = self._srun.poll()
        if gone is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                gone = self._srun.wait(_LEAVE_S)
        if gone is None or gone < 0:
            # Without its srun a step goes on.
            self._end_step()

    def _end_step(self) -> None:
        if self._step:
            with contextlib.suppress(queue.QueueError):
                queue.cancel([f"{os.environ['SLURM_JOB_ID']}.{self._step}"])
        if self._srun.poll() is None:
            self._srun.terminate()
            try:
                self._srun.wait(_LEAVE_S)
            except subprocess.TimeoutExpired:
                self._srun.kill()
                self._srun.wait()

    def _read(self) -> None:
        """In a thread: what hosts say is put into the queue, anything else is with the words of srun."""
        assert self._srun.stdout is not None
        for line in self._srun.stdout:
            if line.startswith(MARK) and line.endswith(b"\n"):
                self._messages.put(orjson.loads(line.removeprefix(MARK)))
            else:
                os.write(self._words.fileno(), line)
        self._messages.put(None)


class ForkedRanks:
    """The ranks of one attempt that hosts have forked; see `Processes` in step.py."""

    hears_slurm = False

    def __init__(self, hosts: Hosts, run: int, attempt: Attempt) -> None:
        self._hosts = hosts
        self._run = run
        self._log = attempt.log
        self._left = set(range(attempt.world_size))
        self._code = 0
        self._killed_at = 0.0

    def wait(self, timeout_s: float) -> int | None:
        """The exit code once all have ended, of the first that failed; None if they have not within this time."""
        until = time.monotonic() + timeout_s
        while True:
            message = self._hosts.listen(max(0.0, until - time.monotonic()))
            if message is not None and message["said"] == "ended" and message["run"] == self._run:
                self._ended(message)
            self._tell(self._hosts.words())
            if not self._left:
                return self._code
            lost = self._killed_at and time.monotonic() - self._killed_at > _KILLED_S
            if lost or (message is None and self._hosts.have_ended()):
                self._hosts.end()
                self._tell(self._hosts.words())
                return self._code or self._hosts.code()
            if time.monotonic() >= until:
                return None

    def stop(self) -> None:
        """Tell them to save and leave. Slurm tells them as well when the job is to end, but not those just being started."""
        self._hosts.tell(do="stop", run=self._run)

    def kill(self) -> None:
        """Kill them."""
        self._killed_at = self._killed_at or time.monotonic()
        self._hosts.tell(do="kill", run=self._run)

    def _ended(self, message: dict[str, Any]) -> None:
        """If one fails the others are killed: they would wait for it for ever. If one was told to save, so are the others."""
        self._left.discard(message["rank"])
        code = message["code"]
        self._code = self._code or (code if code >= 0 else 128 - code)
        if code == 0 or self._killed_at:
            return
        if code == SAVED:
            self.stop()
            return
        how = f"Exited with exit code {code}" if code > 0 else signal.strsignal(-code) or f"Signal {-code}"
        if code == -signal.SIGKILL and message["oom_kills"]:
            how += f", and its node counts {message['oom_kills']} oom_kill"
        if message["rank"]:
            how += f", see {rank_log(self._log, message['rank']).name}"
        self._tell(f"host: error: {message['name']}: task {message['rank']}: {how}\n".encode())
        self.kill()

    def _tell(self, words: bytes) -> None:
        if words:
            with self._log.open("ab") as log:
                log.write(words)


def _engine(attempt: Attempt) -> str | None:
    """A name for what the ranks of an attempt load: those of the same name can take each other's place."""
    if attempt.task.policy_engine is None:
        return None
    loaded = [attempt.task.policy_engine, str(attempt.inputs["policy"]), attempt.resources, attempt.engine, attempt.environment]
    return digest([one.model_dump(mode="json") if isinstance(one, BaseModel) else one for one in loaded])[:8]


def _say(words: bytes) -> None:
    """In the log of the job."""
    sys.stderr.write(words.decode(errors="replace"))
    sys.stderr.flush()


def uses_vllm(spec: Any) -> bool:
    """Whether an engine of a stage is vLLM."""
    if isinstance(spec, dict):
        return spec.get("engine") == "vllm" or any(uses_vllm(value) for value in spec.values())
    return isinstance(spec, list | tuple) and any(uses_vllm(value) for value in spec)

"""Local execution: a bounded pool of processes, forked from a warm server, each stage in a process group of its own."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

from eva_hpc.cluster.board import Board, State
from eva_hpc.cluster.execution import Attempt, MissingInput, conclude, prepare, prepare_ahead
from eva_hpc.cluster.failure import first_failure
from eva_hpc.cluster.ledger import Ledger
from eva_hpc.cluster.node_local import free_port
from eva_hpc.cluster.owners import is_alive, this_process
from eva_hpc.cluster.worker import forked
from eva_hpc.config.site import Site
from eva_hpc.plan.jobs import task_resources
from eva_hpc.plan.plan import Task
from eva_hpc.stages.contract import GRACE_S, SAVED
from eva_hpc.store.artifacts import Store


@dataclass(frozen=True)
class _Ended:
    """How a task ended: committed if there is no reason why not; `saved` if it was told to stop and can go on."""

    task: Task
    seconds: float = 0.0
    reason: str | None = None
    saved: bool = False


@dataclass
class _Running:
    """A task at work, which of the slots it has, and the processes that already work on those that read from it."""

    task: Task
    slots: tuple[int, ...]
    processes: list[BaseProcess] = field(default_factory=list)
    ahead: dict[str, BaseProcess] = field(default_factory=dict)
    first_to_fail: str = ""


class LocalPool:
    """Runs tasks on this machine, at most `site.slots` processes at once."""

    def __init__(self, board: Board, site: Site, store: Store, results: Path) -> None:
        self.board = board
        self.site = site
        self.store = store
        self.results = results
        self.ledger = Ledger(results)
        self._ended: queue.Queue[_Ended] = queue.Queue()
        self._running: dict[str, _Running] = {}
        os.environ["OMP_NUM_THREADS"] = str(site.default.threads)
        if not any(need.gpus_per_rank for need in (site.default, *site.stages.values())):
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # what runs where must be what the site file says
        self._server = multiprocessing.get_context("forkserver")
        self._server.set_forkserver_preload(["eva_hpc.cluster.warm"])
        # What vLLM finds out about a model, in a process of its own, is found by the next stage in the same slot.
        self._caches = tempfile.TemporaryDirectory(prefix="eva-hpc-")

    def run(self, tasks: Sequence[Task]) -> None:
        """Run the tasks as their inputs become ready, until all have ended or are blocked by one that failed.

        Raises:
            KeyboardInterrupt: after every running stage was told to stop and has saved or, too slow, was killed.
        """
        waiting = {task.id: task for task in tasks}
        try:
            while waiting or self._running:
                self._start_ready(waiting)
                if not self._running:
                    break
                self._collect()
        except KeyboardInterrupt:
            self._stop()
            raise

    def _start_ready(self, waiting: dict[str, Task]) -> None:
        """Start what fits, in the order of the plan."""
        taken = {slot for running in self._running.values() for slot in running.slots}
        free = [slot for slot in range(self.site.slots) if slot not in taken]
        for task in list(waiting.values()):
            state = self.board.entries[task.id].state
            if state is State.BLOCKED:
                del waiting[task.id]
                continue
            slots = width(task, self.site)
            if slots <= len(free) and all(self._there(parent) for parent in self.board.plan.parents(task)):
                del waiting[task.id]
                self._start(task, tuple(free[:slots]))
                free = free[slots:]
            if not free:
                return

    def _there(self, task: Task) -> bool:
        return self.board.entries[task.id].state in (State.DONE, State.REUSED)

    def _start(self, task: Task, slots: tuple[int, ...]) -> None:
        running = self._running[task.id] = _Running(task, slots)
        holder = self.store.claim(task.identity, this_process())
        if holder is not None and not is_alive(holder):
            holder = self.store.take_over(task.identity, holder, this_process())
        if holder is not None:
            self._ended.put(_Ended(task, reason=f"{holder} is at work on it: wait for that, then run the same command again"))
            return
        try:
            attempt = prepare(task, self.site, self.store, self.results)
        except MissingInput as error:
            self._ended.put(_Ended(task, reason=str(error)))
            return
        self.board.started(task, attempt.log, attempt.work)
        self.ledger.record("started", task=task.id, runs=len(task.runs), log=str(attempt.log))
        threading.Thread(target=self._attend, args=(running, attempt), daemon=True).start()

    def _attend(self, running: _Running, attempt: Attempt) -> None:
        """Start the processes of a task, wait for them, commit."""
        began = time.monotonic()
        try:
            with self._working_ahead(running, attempt):
                codes = self._run_processes(running, attempt)
            seconds = time.monotonic() - began
            if all(code == 0 for code in codes):
                conclude(attempt, self.store, seconds)
                end = _Ended(running.task, seconds)
            elif SAVED in codes and all(code in (0, SAVED) for code in codes):
                end = _Ended(running.task, reason="stopped", saved=True)
            else:
                end = _Ended(running.task, reason=_reason(attempt, running))
        except Exception as error:
            end = _Ended(running.task, reason=f"{type(error).__name__}: {error}")
        self._ended.put(end)

    @contextmanager
    def _working_ahead(self, running: _Running, attempt: Attempt) -> Iterator[None]:
        """Let tasks begin that read what this one makes, piece by piece. They wait for servers: they need no slot."""
        tasks = [one for one in self.board.plan.children(attempt.task) if self.board.entries[one.id].state is State.PENDING]
        try:
            for one in prepare_ahead(attempt, tasks, self.site, self.store, self.results, this_process()):
                arguments = (one.model_dump_json().encode(), 0, None, self._caches.name, True)
                process = self._server.Process(target=forked, args=arguments, name=f"{one.task.stage}:ahead")
                process.start()
                running.ahead[one.task.id] = process
            yield
        finally:
            until = time.monotonic() + GRACE_S
            for name, process in running.ahead.items():
                while process.is_alive():  # again and again: it may not have set up its signals yet
                    _signal_group(process, signal.SIGTERM if time.monotonic() < until else signal.SIGKILL)
                    process.join(0.5)
                self.store.release(self.board.plan.by_id[name].identity, this_process())

    def _run_processes(self, running: _Running, attempt: Attempt) -> list[int]:
        """Exit codes by rank. When one rank fails the others are ended: they would wait for it for ever."""
        encoded = attempt.model_dump_json().encode()
        master = ("127.0.0.1", free_port()) if attempt.task.parallel == "ranks" and attempt.world_size > 1 else None
        for rank, slot in enumerate(running.slots):
            arguments = (encoded, rank, master, f"{self._caches.name}/{slot}")
            process = self._server.Process(target=forked, args=arguments, name=f"{attempt.task.stage}:{rank}")
            process.start()
            running.processes.append(process)
        pending = set(running.processes)
        while pending:
            sentinels = {process.sentinel: process for process in pending}
            for sentinel in multiprocessing.connection.wait(list(sentinels)):
                process = sentinels[sentinel]  # type: ignore[index]
                process.join()
                pending.discard(process)
                if process.exitcode not in (0, SAVED):
                    if not running.first_to_fail:
                        rank = running.processes.index(process)
                        running.first_to_fail = f"rank {rank} {_how(process.exitcode)}"
                    for other in pending:
                        _signal_group(other, signal.SIGKILL)
        return [process.exitcode if process.exitcode is not None else 1 for process in running.processes]

    def _collect(self) -> None:
        """Wait for one task to end and book it."""
        end = self._ended.get()
        task = end.task
        del self._running[task.id]
        if end.reason is None:
            self.board.finished(task, end.seconds)
            need = task_resources(task, self.site)
            width = {"processes": need.world_size, "gpus": need.world_size * need.gpus_per_rank}
            self.ledger.record("done", task=task.id, runs=len(task.runs), seconds=round(end.seconds, 3), **width)
        else:
            self.board.failed(task, end.reason)
            self.ledger.record("failed", task=task.id, reason=end.reason)

    def _stop(self) -> None:
        """Tell every stage to stop, wait for it to save, kill what does not end in time."""
        deadline = time.monotonic() + GRACE_S
        for number in (signal.SIGTERM, signal.SIGKILL):
            while self._running and (number == signal.SIGKILL or time.monotonic() < deadline):
                # Again and again: a process that was just being started is met at the next turn.
                for running in list(self._running.values()):
                    for process in [*running.processes, *running.ahead.values()]:
                        _signal_group(process, number)
                try:
                    end = self._ended.get(timeout=0.1)
                except queue.Empty:
                    continue
                except KeyboardInterrupt:
                    break
                del self._running[end.task.id]
                if end.reason is None:
                    self.board.finished(end.task, end.seconds)
                    self.ledger.record("done", task=end.task.id, seconds=round(end.seconds, 3))
                else:
                    self.board.set(end.task, State.PENDING)
                    self.ledger.record("stopped", task=end.task.id, saved=end.saved)


def width(task: Task, site: Site) -> int:
    """How many slots a task takes: one per process, at most all there are."""
    return min(task_resources(task, site).world_size, site.slots)


def _signal_group(process: BaseProcess, number: signal.Signals) -> None:
    """Signal a worker with all its children; before it has its own group, the worker alone."""
    if process.pid is None or not process.is_alive():
        return
    try:
        own_group = os.getpgid(process.pid) == process.pid
        (os.killpg if own_group else os.kill)(process.pid, number)
    except ProcessLookupError:
        return


def _reason(attempt: Attempt, running: _Running) -> str:
    """Why a task failed: what its first failing rank said, else how that rank's process ended."""
    failure = first_failure(attempt.work)
    return failure.reason if failure else running.first_to_fail or "stopped without being asked to"


def _how(code: int | None) -> str:
    code = code or 1
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"left with code {code}"

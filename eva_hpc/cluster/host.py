"""What stays on each node of a job from its first stage to its last: it imports torch and the like once, and forks every rank.

    python -m eva_hpc.cluster.host [vllm]        started by the driver, one on each node: see hosts.py

    driver -> all hosts    {"do": "run", "run": 3, "attempt": {…}, "master": ["node1", 12345], "failed": 0,
                            "engine": "5c1f…", "keep": true}
                           {"do": "stop", "run": 3}      {"do": "kill", "run": 3}      {"do": "release"}
    host -> driver         {"said": "ready", "node": 0, "name": "node1", "pid": 71, "step": "4", "seconds": 6.1}
                           {"said": "ended", "run": 3, "node": 0, "name": "node1", "rank": 1, "code": -9, "oom_kills": 0}
                           {"said": "released", "node": 0, "name": "node1"}

A rank of a run with "keep" stays when it has ended well, and its engine with it: the next run of the same "engine" goes on in
that process. Another one that runs on all ranks, or "release", ends it first.

The messages are lines on the standard input and output of the srun that started the hosts. So nothing listens on a port, and
who may talk to a host is for Slurm to know. When the input ends, the driver is gone: a host kills its ranks and leaves.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import orjson

from eva_hpc.cluster.execution import Attempt
from eva_hpc.cluster.oom import oom_kills
from eva_hpc.cluster.rendezvous import rank_from_environment
from eva_hpc.cluster.worker import RUN, STOP_SIGNALS, Host, forked_from_host, write_line

MARK = b"eva-hpc-host "
"""What a line that is for the driver begins with: modules and shell lines may print as well."""

_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of linux/prctl.h


def main(arguments: Sequence[str]) -> NoReturn:
    """Import, then do what the driver says until it is gone."""
    began = time.monotonic()
    answers = os.dup(1)
    os.dup2(2, 1)
    commands = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    for number in STOP_SIGNALS:
        signal.signal(number, lambda *_: None)
    # Threads of a pool would not survive a fork, and what they hold would stay locked. Ranks set their own number.
    os.environ["OMP_NUM_THREADS"] = "1"
    import eva_hpc.cluster.warm  # noqa: F401

    if "vllm" in arguments:
        with contextlib.suppress(ImportError):
            _import_vllm()
    _Host(commands, answers).serve(round(time.monotonic() - began, 1))


def _import_vllm() -> None:
    import torch

    from eva_hpc.inference.vllm_engine import set_environment

    set_environment(torch.cuda.is_available(), 1, None)
    from vllm import LLM, SamplingParams  # noqa: F401


@dataclass
class _Rank:
    """A process: of which run it is which rank, and how many OOM kills its node had seen before.

    Attributes:
        pid: of it, and of its group.
        engine: the name of what it has loaded, None if that is of no further use.
        orders: where it reads what to run next.
        done: where it says that a run has ended well, and that it waits for the next.
    """

    pid: int
    run: int
    rank: int
    oom_kills: int
    engine: str | None
    orders: int
    done: int

    def close(self) -> None:
        """Nothing more is said to it."""
        os.close(self.orders)
        os.close(self.done)


class _Host:
    def __init__(self, commands: int, answers: int) -> None:
        self._commands = commands
        self._answers = answers
        self._me = rank_from_environment()
        self._ranks: dict[int, _Rank] = {}
        self._resting: dict[int, _Rank] = {}
        # Ranks wait at one end. The other closes with this process, however it ends, and then they end too.
        self._alive, self._held = os.pipe()
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._wake, False)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in STOP_SIGNALS:
            signal.signal(number, self._forward)
        # What a stage leaves behind becomes a child of this process, which ends it.
        ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
        self._helpers = _children()

    def serve(self, seconds: float) -> NoReturn:
        """Do what the driver says; `seconds` is what the imports took."""
        if _forks_can_use_cuda():
            self._say("ready", pid=os.getpid(), step=os.environ.get("SLURM_STEP_ID", ""), seconds=seconds)
        else:
            self._say("unfit", why="an import has started CUDA, which forks cannot use then")
        unread = b""
        while True:
            readable, _, _ = select.select([self._commands, self._woken, *(rank.done for rank in self._ranks.values())], [], [])
            for rank in [rank for rank in self._ranks.values() if rank.done in readable]:
                self._rest(rank)
            if self._woken in readable:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._woken, 4096)
                self._reap()
            if self._commands in readable:
                new = os.read(self._commands, 65536)
                if not new:
                    self._leave()
                *lines, unread = (unread + new).split(b"\n")
                for line in lines:
                    self._obey(orjson.loads(line))

    def _say(self, said: str, **fields: Any) -> None:
        message = {"said": said, "node": self._me.rank, "name": self._me.node, **fields}
        os.write(self._answers, MARK + orjson.dumps(message) + b"\n")

    def _obey(self, message: dict[str, Any]) -> None:
        if message["do"] == "run":
            self._run(message)
            return
        if message["do"] == "release":
            self._release()
            self._say("released")
            return
        for pid in [pid for pid, rank in self._ranks.items() if rank.run == message["run"]]:
            if message["do"] == "kill":
                _kill_group(pid)
            else:
                os.kill(pid, signal.SIGTERM)

    def _forward(self, number: int, *_: object) -> None:
        """Where Slurm tracks processes by their group, its signals reach this process alone."""
        for pid in list(self._ranks):
            os.kill(pid, number)

    def _run(self, message: dict[str, Any]) -> None:
        """Start the ranks whose place is on this node: in processes that rest with the right engine, else in forks."""
        attempt = Attempt.model_validate_json(orjson.dumps(message["attempt"]))
        if attempt.task.parallel != "one":
            self._release(but=message["engine"])
        if self._me.rank >= attempt.resources.nodes:
            return
        sys.stderr.flush()
        for local_rank in range(attempt.resources.ranks_per_node):
            rank = self._me.rank * attempt.resources.ranks_per_node + local_rank
            resting = next(
                (one for one in self._resting.values() if one.rank == rank and one.engine == message["engine"]), None
            )
            if resting is None or not self._wake_up(resting, message):
                self._fork(attempt, rank, local_rank, message)

    def _fork(self, attempt: Attempt, rank: int, local_rank: int, message: dict[str, Any]) -> None:
        before = oom_kills()
        (ordered, orders), (done, say_done) = os.pipe(), os.pipe()
        # Signals wait until this process knows the rank, and the rank how to stop.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            pid = os.fork()
        except OSError as error:
            print(f"host: error: {self._me.node}: rank {rank} cannot be started: {error}", file=sys.stderr, flush=True)
            self._say("ended", run=message["run"], rank=rank, code=1, oom_kills=0)
            os.close(orders)
            os.close(done)
        else:
            if pid == 0:
                os.close(orders)
                os.close(done)
                self._be(attempt, rank, local_rank, message, Host(self._alive, ordered, say_done))
            self._ranks[pid] = _Rank(pid, message["run"], rank, before, message["engine"], orders, done)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        os.close(ordered)
        os.close(say_done)

    def _rest(self, rank: _Rank) -> None:
        """A run of it has ended well, or it is about to be reaped."""
        if not os.read(rank.done, 1):
            return
        del self._ranks[rank.pid]
        self._resting[rank.pid] = rank
        self._say("ended", run=rank.run, rank=rank.rank, code=0, oom_kills=0)

    def _wake_up(self, rank: _Rank, message: dict[str, Any]) -> bool:
        """Let a process that rests go on with another run; False if it has ended meanwhile."""
        order = {"attempt": message["attempt"], "keep": message["keep"], "environment": _names_of(message)}
        try:
            write_line(rank.orders, order)
        except BrokenPipeError:
            return False
        del self._resting[rank.pid]
        rank.run, rank.oom_kills = message["run"], oom_kills()
        self._ranks[rank.pid] = rank
        return True

    def _release(self, but: str | None = None) -> None:
        """End what rests, `but` those that have this engine: only then is the memory free that they hold."""
        for rank in [rank for rank in self._resting.values() if but is None or rank.engine != but]:
            del self._resting[rank.pid]
            rank.close()
            _kill_group(rank.pid)
            os.waitpid(rank.pid, 0)

    def _be(self, attempt: Attempt, rank: int, local_rank: int, message: dict[str, Any], host: Host) -> NoReturn:
        """In the fork."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for own in (self._commands, self._answers, self._woken, self._wake, self._held):
            os.close(own)
        for other in (*self._ranks.values(), *self._resting.values()):
            other.close()
        os.environ |= {
            "SLURM_PROCID": str(rank),
            "SLURM_LOCALID": str(local_rank),
            "SLURM_NTASKS": str(attempt.world_size),
            **_names_of(message),
        }
        if message["master"]:
            os.environ |= {"MASTER_ADDR": message["master"][0], "MASTER_PORT": str(message["master"][1])}
        forked_from_host(attempt, rank, local_rank, host, keep=message["keep"])

    def _reap(self) -> None:
        """Tell the driver of ranks that have ended, and end what they have left behind."""
        while True:
            try:
                # Its number is its group's too, and not anybody else's before it is waited for.
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            _kill_group(ended.si_pid)
            _, status = os.waitpid(ended.si_pid, 0)
            if resting := self._resting.pop(ended.si_pid, None):
                resting.close()
            rank = self._ranks.pop(ended.si_pid, None)
            if rank is None:
                continue
            rank.close()
            if not self._ranks:
                for left in _children() - self._helpers - self._resting.keys():
                    _kill_group(left)
            code = os.waitstatus_to_exitcode(status)
            self._say("ended", run=rank.run, rank=rank.rank, code=code, oom_kills=oom_kills() - rank.oom_kills)

    def _leave(self) -> NoReturn:
        for pid in (*self._ranks, *self._resting):
            _kill_group(pid)
        os._exit(0)


def _names_of(message: Mapping[str, Any]) -> dict[str, str]:
    """Variables by which the ranks of a run know it: the same for those that are forked and those that are woken."""
    return {
        RUN: str(message["run"]),
        # A build of extensions that was killed leaves a lock behind: what follows is to build elsewhere.
        "SLURM_STEP_ID": f"{os.environ.get('SLURM_STEP_ID', 'none')}.{message['failed']}",
    }


def _kill_group(pid: int) -> None:
    """Kill a process and all of its group, if it leads one already."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError):
            kill(pid, signal.SIGKILL)


def _children() -> set[int]:
    """Pids of the children of this process; empty where the kernel does not list them."""
    try:
        return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}
    except OSError:
        return set()


def _forks_can_use_cuda() -> bool:
    """Whether no import has started CUDA: looking for a GPU may, where NVML is missing."""
    import torch

    pid = os.fork()
    if pid == 0:
        os._exit(int(getattr(torch._C, "_cuda_isInBadFork", bool)()))
    return os.waitpid(pid, 0)[1] == 0


if __name__ == "__main__":
    main(sys.argv[1:])

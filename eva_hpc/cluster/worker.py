"""One process of a stage: sets up signals, log and progress, runs the stage, and leaves with a code that says how it went.

    0  done      1  failed, with the reason in the log      75  saved, start me again

A process that works ahead (see stages/contract.py) never says 0: it is told to stop, or fails, and then it failed in vain.

Started by the local pool as a fork of a warm server; in a job as a fork of the host on its node (host.py) or, where there is
none, by srun: ``python -m eva_hpc.cluster.worker ATTEMPT.json``.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import orjson

from eva_hpc.cluster.cpus import bind_rank
from eva_hpc.cluster.execution import COUNTS, Attempt, rank_log
from eva_hpc.cluster.failure import record_failure
from eva_hpc.cluster.node_local import node_local_environment
from eva_hpc.cluster.rendezvous import rank_from_environment
from eva_hpc.stages import engines
from eva_hpc.stages.contract import SAVED, Interrupted, StageFailed, StageUnavailable
from eva_hpc.stages.registry import STAGES

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)
"""What tells a stage to save and leave."""

RUN = "EVA_HPC_RUN"
"""Variable of a rank that was forked from a host: the number of the run there, of which each try of a stage has its own."""

AHEAD = "ahead"
"""Last word of the command for a process that works ahead."""

_PROGRESS_EVERY_S = 0.25


def run_rank(attempt: Attempt, rank: int, local_rank: int, master: tuple[str, int] | None, *, ahead: bool = False) -> int:
    """Run the stage on one rank, or let it work ahead; returns the exit code."""
    stopped = threading.Event()
    for number in STOP_SIGNALS:
        signal.signal(number, lambda *_: stopped.set())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    # Deprecations inside torch and DeepSpeed are for their authors: they would bury the log.
    warnings.simplefilter("ignore", FutureWarning)
    stage = STAGES[attempt.task.stage]
    context = attempt.context(rank, local_rank, master, progress=_Progress(attempt.work, rank), stop=stopped.is_set)
    try:
        work = stage.ahead if ahead else stage.run
        counts = work(attempt.spec(), attempt.inputs, attempt.folder, context)
    except Interrupted:
        print("stopped; what was done is saved", flush=True)
        return SAVED
    except Exception as error:
        if isinstance(error, StageFailed | StageUnavailable):
            print(f"failed: {error}", file=sys.stderr, flush=True)  # said in full; where in the code helps nobody
        else:
            traceback.print_exc()
        record_failure(attempt.work, rank, error)
        return 1
    if rank == 0:
        (attempt.work / COUNTS).write_bytes(
            orjson.dumps({"read": counts.read, "written": counts.written, "set_aside": dict(counts.set_aside)})
        )
    return 0


def forked(attempt_json: bytes, rank: int, master: tuple[str, int] | None, caches: str, ahead: bool = False) -> None:
    """Entry of a process forked from the warm server: a process group and a log of its own, and it dies with the sweep.

    `caches` is a folder that no other process uses meanwhile; `ahead` says to work ahead.
    """
    os.setsid()
    threading.Thread(target=_die_with_the_launcher, daemon=True).start()
    attempt = Attempt.model_validate_json(attempt_json)
    _write_to(rank_log(attempt.log, rank))
    apply_environment(attempt, rank)
    os.environ.setdefault("VLLM_CACHE_ROOT", caches)
    _leave(run_rank(attempt, rank, rank, master, ahead=ahead))


class Host(NamedTuple):
    """How a rank that was forked from a host hears of it: descriptors of three pipes.

    Attributes:
        alive: its other end closes when the host ends.
        orders: lines that say what to run next.
        done: where a byte says that a run has ended well, and that the rank waits for an order.
    """

    alive: int
    orders: int
    done: int


def forked_from_host(attempt: Attempt, rank: int, local_rank: int, host: Host, *, keep: bool) -> NoReturn:
    """The whole life of a rank forked from its node's host: one run, and with `keep` those that follow in the same engine."""
    code = 1
    try:
        os.setsid()
        threading.Thread(target=_die_with_the_host, args=(host.alive,), daemon=True).start()
        need = attempt.resources
        _begin(attempt, rank)
        _narrow_gpus(need.ranks_per_node * need.gpus_per_rank)
        if attempt.task.parallel != "one":
            bind_rank(local_rank, need.ranks_per_node, need.threads)
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(need.threads)  # it has read OMP_NUM_THREADS already
        engines.keep_open(keep)
        code = run_in_job(attempt)
        with os.fdopen(host.orders, "rb") as orders:
            while code == 0 and keep:
                sys.stdout.flush()
                sys.stderr.flush()
                signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # who is told meanwhile stops the next run
                os.write(host.done, b"0")
                order = orjson.loads(orders.readline())
                attempt, keep = Attempt.model_validate_json(orjson.dumps(order["attempt"])), order["keep"]
                os.environ.update(order["environment"])
                _begin(attempt, rank)
                engines.keep_open(keep)
                code = run_rank(attempt, rank, local_rank, None)
    except BaseException:
        traceback.print_exc()
    _leave(code)


def write_line(descriptor: int, message: Mapping[str, Any]) -> None:
    """Write a message to a pipe, as a line.

    Raises:
        BrokenPipeError: nobody reads it.
    """
    line = memoryview(orjson.dumps(message) + b"\n")
    while line:
        line = line[os.write(descriptor, line) :]


def _begin(attempt: Attempt, rank: int) -> None:
    """What is said from here on goes to the log of this attempt, and ps and top show its stage, cut off by the kernel."""
    _write_to(rank_log(attempt.log, rank))
    Path("/proc/self/comm").write_text(f"{attempt.task.stage}:{rank}")


def _write_to(log: Path) -> None:
    """Send all output to the end of a log."""
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)


def _leave(code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    # Engines leave threads behind that must not hold a step after its work is done.
    os._exit(code)


def _die_with_the_host(alive: int) -> None:
    """End this process group as soon as the host is gone: nobody would hear of what it does."""
    os.read(alive, 1)
    os.killpg(0, signal.SIGKILL)


def _narrow_gpus(count: int) -> None:
    """Of the GPUs that the host sees, which are those of the job's widest stage, only as many as this stage has."""
    if visible := os.environ.get("CUDA_VISIBLE_DEVICES", ""):
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(visible.split(",")[:count])
    elif count == 0:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def _die_with_the_launcher() -> None:
    """End this process group as soon as the process that started the sweep is gone: nobody would commit what it does."""
    launcher = multiprocessing.parent_process()
    if launcher is not None:
        launcher.join()
        os.killpg(0, signal.SIGKILL)


def apply_environment(attempt: Attempt, local_rank: int) -> None:
    """Environment of a rank: the site's variables, threads, and its own GPUs if several are visible.

    Raises:
        RuntimeError: fewer GPUs are visible than the ranks of this node need; without this the rank would use the CPU.
    """
    os.environ.update(attempt.environment)
    os.environ["OMP_NUM_THREADS"] = str(attempt.resources.threads)
    width = attempt.resources.gpus_per_rank
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if width and attempt.task.parallel == "shards":
        devices = visible.split(",") if visible else [str(index) for index in range(width * (local_rank + 1))]
        # A scheduler that binds tasks to GPUs shows each rank its own already; a fork sees those of all ranks.
        bound = len(devices) == width and RUN not in os.environ
        own = devices if bound else devices[local_rank * width : (local_rank + 1) * width]
        if len(own) < width:
            raise RuntimeError(
                f"rank {local_rank} of its node needs {width} GPUs, but only {visible} are visible to all its ranks"
            )
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(own)


class _Progress:
    """Writes how far a rank is, at most every quarter of a second."""

    def __init__(self, work: Path, rank: int) -> None:
        self._path = work / f"progress-{rank}.json"
        self._last = 0.0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._last >= _PROGRESS_EVERY_S or done == total:
            self._last = now
            partial = self._path.with_suffix(".partial")
            partial.write_bytes(orjson.dumps([done, total]))
            partial.rename(self._path)


def run_in_job(attempt: Attempt, *, ahead: bool = False) -> int:
    """Run the stage in this process of a job, or let it work ahead; returns the exit code.

    Who the process is, and where rank 0 is, its environment says.
    """
    where = rank_from_environment() if attempt.task.parallel != "one" else None
    rank, local_rank = (where.rank, where.local_rank) if where else (0, 0)
    os.environ.update(node_local_environment(os.environ["SLURM_JOB_ID"], local_rank))
    try:
        apply_environment(attempt, local_rank)
    except RuntimeError as error:
        record_failure(attempt.work, rank, error)
        raise
    address = os.environ.get("MASTER_ADDR")
    return run_rank(attempt, rank, local_rank, (address, int(os.environ["MASTER_PORT"])) if address else None, ahead=ahead)


if __name__ == "__main__":
    _leave(run_in_job(Attempt.model_validate_json(Path(sys.argv[1]).read_bytes()), ahead=AHEAD in sys.argv[2:]))

"""Why a job or a stage ended without doing its work, from what is known of it, and whether trying again can help."""

from __future__ import annotations

import re
from enum import Enum

from eva_hpc.cluster.queue import Attempt


class Cause(str, Enum):
    """What ended an attempt. The value is the word in the ledger."""

    TIMEOUT = "timeout"
    PREEMPTED = "preempted"
    NODE_FAILURE = "node_failure"
    CUDA_OOM = "cuda_oom"
    HOST_OOM = "host_oom"
    KILLED = "killed"
    PEER_LOST = "peer_lost"
    HUNG = "hung"
    LAUNCH_FAILURE = "launch_failure"
    UNAVAILABLE = "unavailable"
    DISK_FULL = "disk_full"
    MISSING_INPUT = "missing_input"
    CODE_OR_DATA = "code_or_data"
    CANCELLED = "cancelled"
    LOST = "lost"
    HELD = "held"

    @property
    def is_users(self) -> bool:
        """Whether the same will happen again until somebody changes code, data or settings."""
        return self in (Cause.CODE_OR_DATA, Cause.DISK_FULL, Cause.CUDA_OOM)

    @property
    def is_chance(self) -> bool:
        """Whether it lies with a machine of ours, so that trying again can help; counts against `site.slurm.retries`."""
        return self in (Cause.NODE_FAILURE, Cause.KILLED, Cause.PEER_LOST, Cause.HUNG, Cause.LAUNCH_FAILURE, Cause.LOST)

    @property
    def is_of_the_task(self) -> bool:
        """Whether it says nothing against other tasks of the same job: it lies with neither node, disk nor time."""
        return self in (Cause.CODE_OR_DATA, Cause.CUDA_OOM, Cause.MISSING_INPUT, Cause.UNAVAILABLE)

    @property
    def is_interruption(self) -> bool:
        """Whether the work was only stopped, to go on later, without anything having failed."""
        return self in (Cause.TIMEOUT, Cause.PREEMPTED)


_CUDA_OOM = re.compile(
    r"OutOfMemoryError|CUDA out of memory|CUBLAS_STATUS_ALLOC_FAILED|No available memory for the cache blocks"
)
_HOST_OOM = re.compile(
    r"MemoryError|DefaultCPUAllocator|Cannot allocate memory|oom[-_ ]kill|Out Of Memory|exceeded (job |step )?memory limit",
    re.IGNORECASE,
)
_DISK_FULL = re.compile(r"No space left on device|Disk quota exceeded|\[Errno (28|122)\]")
_PEER_LOST = re.compile(
    r"Connection (closed by peer|reset by peer|refused)|Broken pipe|NCCL|ncclRemoteError|Timed out waiting .* for (recv|send)"
    r"|DistBackendError|DistNetworkError|Socket (closed|timeout)|unhandled system error"
)
_LAUNCH_FAILURE = re.compile(
    r"srun: error: (Unable to (confirm allocation|create step|contact)|.*Unable to contact slurm controller"
    r"|Task launch .* failed|Application launch failed|.*Communication connection failure|.*Socket timed out)"
    r"|Job credential expired"
)
_KILLED = re.compile(r"(srun|host): error: .*: task[s]? .*: (Killed|Segmentation fault|Bus error|Aborted|Terminated)")
_NODE_FAILURE = re.compile(r"srun: error: (Node failure on|.*Job .* step .* aborted before)|DUE TO NODE FAILURE")


def cause_of_exception(kind: str, text: str) -> Cause:
    """The cause behind an exception that a process of a stage ended with, by its type's name and its message."""
    # What a stage says of itself may quote a server: its memory and its connections are not ours.
    if kind in ("StageFailed", "StageUnavailable"):
        return Cause.UNAVAILABLE if kind == "StageUnavailable" else Cause.CODE_OR_DATA
    said = f"{kind}: {text}"
    for pattern, cause in ((_DISK_FULL, Cause.DISK_FULL), (_CUDA_OOM, Cause.CUDA_OOM), (_HOST_OOM, Cause.HOST_OOM)):
        if pattern.search(said):
            return cause
    if kind == "MissingInput":
        return Cause.MISSING_INPUT
    if _PEER_LOST.search(said):
        return Cause.PEER_LOST
    return Cause.CODE_OR_DATA


def cause_of_log(code: int, said: str) -> tuple[Cause, str]:
    """The cause behind processes that ended with `code` and left no exception, and the line of their log that tells it.

    Partners that srun ended after the one to blame may be named before it: the line is the first that is about the cause.
    """
    lines = said.splitlines()
    for pattern, cause in (
        (_NODE_FAILURE, Cause.NODE_FAILURE),
        (_LAUNCH_FAILURE, Cause.LAUNCH_FAILURE),
        (_CUDA_OOM, Cause.CUDA_OOM),
        (_HOST_OOM, Cause.HOST_OOM),
        (_DISK_FULL, Cause.DISK_FULL),
        (_KILLED, Cause.KILLED),
    ):
        for line in lines:
            if pattern.search(line):
                return cause, line.strip()
    return Cause.KILLED if code < 0 or code > 128 else Cause.CODE_OR_DATA, f"its processes ended with code {code}"


def cause_of_state(attempt: Attempt) -> Cause:
    """The cause behind an attempt of a job that ended without its driver saying why, from Slurm's accounting.

    COMPLETED is not believed: a node that cannot start a job reports it completed (see the tests).
    """
    return {
        "TIMEOUT": Cause.TIMEOUT,
        "DEADLINE": Cause.TIMEOUT,
        "PREEMPTED": Cause.PREEMPTED,
        "REQUEUED": Cause.PREEMPTED,
        "NODE_FAIL": Cause.NODE_FAILURE,
        "BOOT_FAIL": Cause.NODE_FAILURE,
        "OUT_OF_MEMORY": Cause.HOST_OOM,
        "CANCELLED": Cause.HELD if "Dependency" in attempt.reason else Cause.CANCELLED,
        "COMPLETED": Cause.LAUNCH_FAILURE,
    }.get(attempt.state, Cause.HOST_OOM if attempt.derived_exit[1] == 125 or attempt.exit[1] == 125 else Cause.KILLED)

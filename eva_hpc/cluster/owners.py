"""Who works on an artifact, in words another process can check: ``slurm 12_3 on CLUSTER``, or ``process 4711 (86311) on node``.

The number in brackets is when the process started, so that a later process with the same id is not taken for it.
"""

from __future__ import annotations

import functools
import os
import platform
import re
from pathlib import Path

from eva_hpc.cluster import queue


def this_process() -> str:
    """This process as an owner."""
    return f"process {os.getpid()} ({_started(os.getpid())}) on {platform.node()}"


def this_job(job_id: str) -> str:
    """The Slurm job that this process is in as an owner. Clusters that share a file system may use the same ids."""
    cluster = os.environ.get("SLURM_CLUSTER_NAME")
    return f"slurm {job_id}" + (f" on {cluster}" if cluster else "")


def is_alive(owner: str, *, at_work: bool = False) -> bool:
    """Whether an owner may still be at work, or go on later; in doubt it is.

    With `at_work`, a job that waits in the queue counts as gone: it may wait for the very nodes that whoever asks has. What it
    has saved is there, and when it starts again it finds that another one is at it.
    """
    if job := re.fullmatch(r"slurm (\S+)(?: on (\S+))?", owner):
        try:
            if job[2] not in (None, os.environ.get("SLURM_CLUSTER_NAME") or _cluster()):
                return True
            entry = queue.squeue([job[1]]).get(job[1])
        except queue.QueueError:
            return True
        return entry is not None and not (at_work and entry.state == "PENDING")
    if process := re.fullmatch(r"process (\d+) \((\d+)\) on (.*)", owner):
        return process[3] != platform.node() or (_runs(int(process[1])) and _started(int(process[1])) == int(process[2]))
    return False


@functools.cache
def _cluster() -> str:
    return queue.show_config()["ClusterName"]


def _started(pid: int) -> int:
    """Clock ticks from the machine's start to that of a process; 0 where /proc does not tell."""
    try:
        # The name of the program, in brackets, may hold anything; start time is the 20th field after it.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError):
        return 0


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

"""Who works on an artifact, in words that another process can check: ``slurm 12_3``, or ``process 4711 on node``."""

from __future__ import annotations

import os
import platform
import re

from eva_hpc.cluster import queue


def this_process() -> str:
    """This process as an owner."""
    return f"process {os.getpid()} on {platform.node()}"


def is_alive(owner: str) -> bool:
    """Whether an owner may still be at work; in doubt it is."""
    if job := re.fullmatch(r"slurm (\S+)", owner):
        try:
            return job[1] in queue.squeue([job[1]])
        except queue.QueueError:
            return True
    if process := re.fullmatch(r"process (\d+) on (.*)", owner):
        return process[2] != platform.node() or _runs(int(process[1]))
    return False


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

"""Who works on an artifact, in words another process can check: ``slurm 12_3``, or ``process 4711 (86311) on node``.

The number in brackets is when the process started, so that a later process with the same id is not taken for it.
"""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

from eva_hpc.cluster import queue


def this_process() -> str:
    """This process as an owner."""
    return f"process {os.getpid()} ({_started(os.getpid())}) on {platform.node()}"


def is_alive(owner: str) -> bool:
    """Whether an owner may still be at work; in doubt it is."""
    if job := re.fullmatch(r"slurm (\S+)", owner):
        try:
            return job[1] in queue.squeue([job[1]])
        except queue.QueueError:
            return True
    if process := re.fullmatch(r"process (\d+) \((\d+)\) on (.*)", owner):
        return process[3] != platform.node() or (_runs(int(process[1])) and _started(int(process[1])) == int(process[2]))
    return False


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

"""Processes of the throwaway cluster: started, found by pid file, and ended only when they are surely its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

PACKAGES = {"munged": "munge", "slurmctld": "slurmctld", "slurmd": "slurmd", "srun": "slurm-client", "scontrol": "slurm-client"}
SBIN = ("/usr/sbin", "/usr/local/sbin", "/sbin")  # where daemons live; not on every user's PATH


class DevclusterError(RuntimeError):
    """The throwaway cluster cannot be started or stopped; the message says why and what to do."""


def program(name: str) -> str:
    """Path of one of Slurm's programs.

    Raises:
        DevclusterError: one is missing; the message has the packages to install.
    """
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *SBIN])
    missing = [each for each in PACKAGES if not shutil.which(each, path=path)]
    if missing:
        packages = " ".join(sorted({PACKAGES[each] for each in missing}))
        raise DevclusterError(f"not installed: {', '.join(missing)}. On Debian or Ubuntu: apt-get install {packages}")
    return str(shutil.which(name, path=path))


def start(command: list[str], log: Path, timeout_s: float = 10.0) -> None:
    """Start a daemon that puts itself in the background.

    Raises:
        DevclusterError: it did not start; the message ends with the tail of its log.
    """
    with log.open("ab") as out:
        try:
            result = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=timeout_s, cwd="/")
        except subprocess.TimeoutExpired:
            raise DevclusterError(f"{command[0]} did not start within {timeout_s:g} s:\n{tail(log)}") from None
    if result.returncode:
        raise DevclusterError(f"{command[0]} ended with code {result.returncode}:\n{tail(log)}")


def running(pid_file: Path, marker: str) -> int | None:
    """The pid in the file if that process is alive and has `marker` in its command line (pids are used again), else None."""
    try:
        pid = int(pid_file.read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return pid if marker.encode() in command else None


def leftovers(directory: Path) -> list[int]:
    """Pids of the processes of the jobs of the cluster in `directory`, whether or not Slurm still knows the jobs.

    Tasks are known by their environment; slurmstepd, which overwrites its own, by its working directory.
    """
    client = f"SLURM_CONF={directory}/slurm.conf".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
            is_task = client in environment and any(line.startswith(b"SLURM_JOB_ID=") for line in environment)
            in_cluster = directory in (entry / "cwd").readlink().parents
            is_step = in_cluster and (entry / "cmdline").read_bytes().startswith(b"slurmstepd")
        except OSError:  # it ended meanwhile, or is another user's
            continue
        if is_task or is_step:
            found.append(int(entry.name))
    return sorted(found)


def stop(pids: list[int], grace_s: float) -> bool:
    """End processes: SIGTERM, and SIGKILL to those that are still there after `grace_s` seconds. False if there are none."""
    for sent in (signal.SIGTERM, signal.SIGKILL):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sent)
        if wait_until(lambda: not any(_alive(pid) for pid in pids), grace_s):
            break
    return bool(pids)


def wait_until(condition: Callable[[], bool], timeout_s: float, interval_s: float = 0.05) -> bool:
    """Poll until the condition holds; False if it does not within the time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(interval_s)
    return True


def tail(log: Path, lines: int = 12) -> str:
    """The last lines of a log, indented."""
    text = log.read_text(errors="replace") if log.exists() else "(no log)"
    return "\n".join(f"    {line}" for line in text.splitlines()[-lines:])


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"

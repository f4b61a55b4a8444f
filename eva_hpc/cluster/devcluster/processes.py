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
ACCOUNTING_PACKAGES = {
    "slurmdbd": "slurmdbd",
    "mariadbd": "mariadb-server-core",
    "sacctmgr": "slurm-client",
    "setsid": "util-linux",
}
SBIN = ("/usr/sbin", "/usr/local/sbin", "/sbin")  # where daemons live; not on every user's PATH


class DevclusterError(RuntimeError):
    """The throwaway cluster cannot be started or stopped; the message says why and what to do."""


def program(name: str) -> str:
    """Path of one of Slurm's programs, or of those that accounting needs.

    Raises:
        DevclusterError: it or another one of its kind is missing; the message has the packages to install.
    """
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *SBIN])
    packages = ACCOUNTING_PACKAGES if name in ACCOUNTING_PACKAGES else PACKAGES
    missing = [each for each in packages if not shutil.which(each, path=path)]
    if missing:
        needed = " ".join(sorted({packages[each] for each in missing}))
        raise DevclusterError(f"not installed: {', '.join(missing)}. On Debian or Ubuntu: apt-get install {needed}")
    return str(shutil.which(name, path=path))


def start(
    command: list[str], log: Path, timeout_s: float = 10.0, stdin: bytes = b"", environment: dict[str, str] | None = None
) -> None:
    """Start a daemon that puts itself in the background, or run a program until it ends.

    Raises:
        DevclusterError: it did not start; the message ends with the tail of its log.
    """
    with log.open("ab") as out:
        try:
            result = subprocess.run(command, input=stdin, stdout=out, stderr=out, timeout=timeout_s, cwd="/", env=environment)
        except subprocess.TimeoutExpired:
            raise DevclusterError(f"{command[0]} did not start within {timeout_s:g} s:\n{tail(log)}") from None
    if result.returncode:
        raise DevclusterError(f"{command[0]} ended with code {result.returncode}:\n{tail(log)}")


def running(pid_file: Path, name: str, directory: Path) -> int | None:
    """The pid in the file if that process is alive, has this program's name, and a path in the directory among its arguments
    or in its environment (pids are used again), else None."""
    try:
        process = Path("/proc") / str(int(pid_file.read_text()))
        named = (process / "comm").read_text().strip() == name
        known = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
    except (OSError, ValueError):
        return None
    return int(process.name) if named and f"{directory}/".encode() in known else None


def tasks(directory: Path) -> dict[int, dict[str, str]]:
    """Environment by pid of the processes of the jobs of the cluster in `directory`, whether or not Slurm still knows the jobs.

    It is the environment that a process was started with: what it changed itself later does not count.
    """
    found = {}
    for process in _processes():
        with contextlib.suppress(OSError):  # it ended meanwhile, or is another user's
            lines = (process / "environ").read_bytes().decode(errors="replace").split("\0")
            environment = dict(line.split("=", 1) for line in lines if "=" in line)
            if environment.get("SLURM_CONF") == f"{directory}/slurm.conf" and "SLURM_JOB_ID" in environment:
                found[int(process.name)] = environment
    return found


def slurmstepds(directory: Path, node: str | None = None) -> list[int]:
    """Pids of the processes that watch over steps of the cluster in `directory`, or over those on one of its nodes.

    They overwrite their arguments and environment, but work in the directory of the logs and hold their node's log open.
    """
    found = []
    for process in _processes():
        with contextlib.suppress(OSError):  # it ended meanwhile, or is another user's
            if (process / "comm").read_text() != "slurmstepd\n" or directory not in (process / "cwd").readlink().parents:
                continue
            log = directory / "log" / f"slurmd.{node}.log"
            if node is None or log in [file.readlink() for file in (process / "fd").iterdir()]:
                found.append(int(process.name))
    return found


def leftovers(directory: Path) -> list[int]:
    """Pids of all processes that jobs of the cluster in `directory` have on this machine."""
    return sorted([*tasks(directory), *slurmstepds(directory)])


def kill(pids: list[int]) -> bool:
    """End processes at once with SIGKILL and wait until they are gone. False if there are none."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(_alive(pid) for pid in pids), timeout_s=5)
    return bool(pids)


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


def _processes() -> list[Path]:
    return [each for each in Path("/proc").iterdir() if each.name.isdigit() and int(each.name) != os.getpid()]


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"

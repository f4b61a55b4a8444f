"""What the processes of a job keep on their own node: caches of compiled kernels, and ports that no other job there takes.

    (SLURM_TMPDIR, TMPDIR or /tmp)/eva-hpc-UID/JOB/NODE/
        vllm-0/  vllm-1/    one for each local rank: vLLM writes its cache without locks
        inductor/  triton/  cuda/    shared by the processes of the job: these write atomically, and a kernel is compiled once
        extensions-STEP/    a build that was killed leaves a lock behind, for which a later step would wait for ever

A home directory on the network is the wrong place for all of this: it is slow, small, and locks there are not to be trusted.
XDG_CACHE_HOME is left alone: it would move the cache of downloaded models too.
"""

from __future__ import annotations

import os
import platform
import shutil
import socket
import stat
import time
import zlib
from collections.abc import Mapping
from pathlib import Path

PORTS = 64
"""Ports of a job: the first 16 for its rendezvous, then 6 for each of 8 local ranks."""

_FOR_RENDEZVOUS = 16
_PER_RANK = 6
_LOWEST_PORT = 10_000
_LEFTOVER_S = 7 * 24 * 3600


def node_local_environment(job_id: str, local_rank: int, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables that lead a process of a job to its caches on this node and to its ports; makes the folder.

    What `environ` has already is left out: the user's word counts. Where the folder cannot be made, only ports are given.
    """
    ports = port_range(job_id)
    variables = {"VLLM_PORT": str(ports[(_FOR_RENDEZVOUS + local_rank * _PER_RANK) % PORTS])}
    try:
        folder = _make_folder(job_id, environ)
    except OSError as error:
        print(f"caches stay where they are by default: {error}", flush=True)
    else:
        variables |= {
            "VLLM_CACHE_ROOT": str(folder / f"vllm-{local_rank}"),
            "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
            "TRITON_CACHE_DIR": str(folder / "triton"),
            "CUDA_CACHE_PATH": str(folder / "cuda"),
            "TORCH_EXTENSIONS_DIR": str(folder / f"extensions-{environ.get('SLURM_STEP_ID', 'none')}"),
        }
    return {name: value for name, value in variables.items() if name not in environ}


def remove_caches(job_id: str, environ: Mapping[str, str] = os.environ) -> None:
    """Remove the caches of a job from this node, and leave those on its other nodes.

    What is left there, and by jobs that were killed, goes when a later job of the same user starts on that node a week after.
    """
    shutil.rmtree(_base(environ) / job_id / _node(environ), ignore_errors=True)
    try:
        (_base(environ) / job_id).rmdir()
    except OSError:
        return  # never made, or another node keeps its caches there too


def port_range(job_id: str) -> range:
    """Ports for a job, below those that the kernel hands out: two jobs of nearly the same number never share one.

    Args:
        job_id: SLURM_JOB_ID, the plain number that each task of an array has for itself.
    """
    first, last = _handed_out_by_the_kernel()
    # Some sites let the kernel use nearly all: then above it, and if there is no room either, among its own.
    low, high = (_LOWEST_PORT, first) if first - _LOWEST_PORT >= PORTS else (last + 1, 65_536)
    if high - low < PORTS:
        low, high = _LOWEST_PORT, 32_768
    number = int(job_id) if job_id.isdecimal() else zlib.crc32(job_id.encode())
    start = low + number % ((high - low) // PORTS) * PORTS
    return range(start, start + PORTS)


def rendezvous_port(job_id: str) -> int:
    """The first port of the job for its ranks to meet at that is free on this node; any free one if all are taken."""
    return free_port(port_range(job_id)[:_FOR_RENDEZVOUS])


def free_port(ports: range = range(0)) -> int:
    """The first of these TCP ports that is free on this node, else one the kernel chooses. Another process may be faster."""
    for port in [*ports, 0]:
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            chosen: int = probe.getsockname()[1]
            return chosen
    raise OSError("no TCP port is free on this node")


def _handed_out_by_the_kernel() -> tuple[int, int]:
    try:
        first, last = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    except (OSError, ValueError):
        return 32_768, 60_999  # Linux's default
    return int(first), int(last)


def _base(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("SLURM_TMPDIR") or environ.get("TMPDIR") or "/tmp") / f"eva-hpc-{os.getuid()}"


def _node(environ: Mapping[str, str]) -> str:
    return environ.get("SLURMD_NODENAME") or platform.node()


def _make_folder(job_id: str, environ: Mapping[str, str]) -> Path:
    """The folder of a job on this node, for this user alone.

    Raises:
        OSError: it cannot be made, or somebody else has made it, who could then put code there for us to run.
    """
    base = _base(environ)
    base.mkdir(mode=0o700, exist_ok=True)
    status = base.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise PermissionError(f"{base} is not a folder of this user alone")
    folder = base / job_id / _node(environ)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.utime(folder.parent)
    for job in base.iterdir():
        try:
            if time.time() - job.stat().st_mtime > _LEFTOVER_S:
                shutil.rmtree(job, ignore_errors=True)
        except FileNotFoundError:
            continue  # another process removes it
    return folder

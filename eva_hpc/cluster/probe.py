"""What a compute node says of itself: the job side of ``eva-hpc doctor``. Started by Slurm, not by hand.

    python -m eva_hpc.cluster.probe node FOLDER NONCE    the job: looks at the node and its file system, starts the others
    python -m eva_hpc.cluster.probe rank FOLDER          a process of a nested step: can it be reached, does it get signals
    python -m eva_hpc.cluster.probe packages NAME …      a software environment: which of these packages can be imported

In FOLDER doctor leaves ``nonce`` and ``request.json``; the job writes ``hello.json``, waits for doctor's ``echo``, writes
``pong.json``, and in the end ``answer.json``. All is JSON. `packages` may run in an environment that has nothing but Python.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

NOT_VISIBLE = 3
"""Exit code of a job that does not see doctor's files."""

_ECHO_S = 40.0
_RANKS_READY_S = 60.0
_SIGNAL_S = 20.0
_CONNECT_S = 10.0
_PACKAGES_S = 300.0
_INTERNET_S = 3.0
_WRITTEN_MB = 64
_LOOK_S = 0.05


def main(arguments: list[str]) -> int:
    """Run one of the three parts; returns the exit code."""
    part, *rest = arguments
    if part == "packages":
        print(json.dumps(packages(rest)), flush=True)
        return 0
    if part == "rank":
        _rank(Path(rest[0]))
        return 0
    return _node(Path(rest[0]), rest[1])


# ---------------------------------------------------------------------------- the job


def _node(folder: Path, nonce: str) -> int:
    try:
        seen = (folder / "nonce").read_text()
    except OSError:
        seen = None
    if seen != nonce:
        print(f"{_node_name()} does not see {folder}", flush=True)
        return NOT_VISIBLE
    told = threading.Event()
    signal.signal(signal.SIGUSR2, lambda *_: told.set())
    request = json.loads((folder / "request.json").read_text())
    write(folder / "hello.json", {"node": _node_name(), "time": time.time()})
    if until((folder / "echo").exists, _ECHO_S):
        write(folder / "pong.json", {"time": time.time()})
    answer: dict[str, Any] = {
        "node": _node_name(),
        "python": sys.version.split()[0],
        "files": files(folder),
        "free_gb": _free_gb(folder),
        "tmp": {"folder": tempfile.gettempdir(), "free_gb": _free_gb(Path(tempfile.gettempdir()))},
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "internet": _internet(request["hub"]),
        "step": _step(folder, request),
        "driver_signalled": told.is_set(),
        "software": {},
    }
    for name, command in request["software"].items():
        answer["software"][name] = _packages_of(command)
    write(folder / "answer.json", answer)
    return 0


def files(folder: Path) -> dict[str, Any]:
    """Whether the file system of a folder can do what the store needs (None: it can, else why not), and MB/s written there."""
    first, second = folder / f"first-{os.getpid()}", folder / f"second-{os.getpid()}"

    def link() -> None:
        os.link(first, second)
        try:
            os.link(first, second)
        except FileExistsError:
            return
        raise OSError("a link replaced an existing one")

    def rename() -> None:
        os.replace(second, first)

    def lock() -> None:
        with first.open("rb") as mine, first.open("rb") as other:
            fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            raise OSError("two locks were given at once")

    first.write_text("first")
    result: dict[str, Any] = {name: _tried(call) for name, call in (("link", link), ("rename", rename), ("lock", lock))}
    block = os.urandom(2**20)
    began = time.monotonic()
    with first.open("wb") as file:
        for _ in range(_WRITTEN_MB):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    result["mb_per_s"] = _WRITTEN_MB / (time.monotonic() - began)
    for path in (first, second):
        path.unlink(missing_ok=True)
    return result


def _tried(call: Callable[[], None]) -> str | None:
    try:
        call()
    except OSError as error:
        return str(error)
    return None


def _step(folder: Path, request: dict[str, Any]) -> dict[str, Any]:
    """What a nested step did: its ranks' answers, or what srun said."""
    from eva_hpc.cluster.node_local import free_port
    from eva_hpc.cluster.queue import QueueError
    from eva_hpc.cluster.rendezvous import clean_environment, master_address, nested_step

    nodes = request["nodes"]
    command = nested_step(
        [sys.executable, "-m", "eva_hpc.cluster.probe", "rank", str(folder)],
        nodes=nodes,
        ranks_per_node=1,
        gpus_per_node=request["gpus"],
        cpus_per_rank=1,
        gpu_type=request["gpu_type"],
    )
    try:
        address = master_address()
    except (QueueError, RuntimeError) as error:
        return {"said": f"the address of the first node is not known: {error}", "ranks": []}
    environment = clean_environment(os.environ) | {"MASTER_ADDR": address, "MASTER_PORT": str(free_port())}
    output = folder / "step.log"
    with output.open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        ready = [folder / f"rank-{rank}.ready" for rank in range(nodes)]
        all_there = until(lambda: process.poll() is not None or all(path.exists() for path in ready), _RANKS_READY_S)
        sent = None
        if all_there and process.poll() is None:
            # scancel is a process of this step too: without the trap it would die of its own signal.
            sent = _said(["bash", "-c", "trap '' USR2; exec scancel --signal=USR2 " + os.environ["SLURM_JOB_ID"]])
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_SIGNAL_S + _CONNECT_S)
        if process.poll() is None:
            process.terminate()
    ranks = [json.loads(path.read_text()) for path in sorted(folder.glob("rank-*.json"))]
    return {
        "code": process.wait(),
        "said": output.read_text(errors="replace").strip()[-2000:],
        "scancel": sent,
        "address": address,
        "ranks": ranks,
    }


def _said(command: list[str]) -> str | None:
    """What a command complained of; None if it did not."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=_SIGNAL_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return result.stderr.strip() or f"code {result.returncode}" if result.returncode else None


def _packages_of(command: list[str]) -> dict[str, Any]:
    from eva_hpc.cluster.rendezvous import clean_environment

    try:
        result = subprocess.run(
            command, env=clean_environment(os.environ), capture_output=True, text=True, timeout=_PACKAGES_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"error": str(error)}
    lines = [line.split(": ", 1)[-1] if line.startswith("0: ") else line for line in result.stdout.splitlines()]
    answers = [line for line in lines if line.startswith("{")]
    if result.returncode or not answers:
        said = [line for line in result.stderr.strip().splitlines() if line.strip()]
        return {"error": said[-1] if said else f"ended with code {result.returncode}"}
    answer: dict[str, Any] = json.loads(answers[-1])
    return answer


def _internet(url: str) -> str | None:
    """None if the hub answers, in whatever way; else why not."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_INTERNET_S).close()
    except urllib.error.HTTPError:
        return None
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))
    return None


def _free_gb(folder: Path) -> float:
    space = os.statvfs(folder)
    return space.f_bavail * space.f_frsize / 1e9


def _node_name() -> str:
    return os.environ.get("SLURMD_NODENAME", socket.gethostname())


# ---------------------------------------------------------------------------- a process of a nested step


def _rank(folder: Path) -> None:
    from eva_hpc.cluster.rendezvous import rank_from_environment

    # Blocked, not handled: a signal that comes at once is kept until it is waited for.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    me = rank_from_environment()
    answer: dict[str, Any] = {
        "node": me.node,
        "meets": _meets(me.rank, me.world_size),
        "sees_files": (folder / "nonce").exists(),
        "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }
    write(folder / f"rank-{me.rank}.ready", {})
    answer["signalled"] = signal.sigtimedwait({signal.SIGUSR2}, _SIGNAL_S) is not None
    write(folder / f"rank-{me.rank}.json", answer)


def _meets(rank: int, world_size: int) -> str | None:
    """None if the ranks can reach each other at the master address; else why not."""
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    try:
        if rank:
            return _connected(address, port)
        with socket.create_server(("", port)) as server:
            server.settimeout(_CONNECT_S)
            for _ in range(world_size - 1):
                server.accept()[0].close()
            socket.getaddrinfo(address, port)
    except OSError as error:
        return f"{address}: {error}"
    return None


def _connected(address: str, port: int) -> str | None:
    said: list[str] = []

    def connects() -> bool:
        try:
            socket.create_connection((address, port), timeout=_INTERNET_S).close()
        except OSError as error:
            said[:] = [f"{address}: {error}"]
            return False
        return True

    return None if until(connects, _CONNECT_S) else said[0]


# ---------------------------------------------------------------------------- a software environment


def packages(names: list[str]) -> dict[str, Any]:
    """The Python of this process, the version of each package it can import, else why not, and the GPUs that torch sees."""
    import importlib

    began = time.monotonic()
    found: dict[str, str] = {}
    broken: dict[str, str] = {}
    with contextlib.redirect_stdout(sys.stderr):  # some packages greet
        for name in names:
            try:
                module = importlib.import_module(name)
                found[name] = str(getattr(module, "__version__", "") or getattr(module, "VERSION", "?"))
            except Exception as error:  # whatever a broken installation raises
                broken[name] = f"{type(error).__name__}: {error}".splitlines()[0]
        torch = sys.modules.get("torch")
        gpus = torch.cuda.device_count() if torch is not None and "torch" in found else None
    return {
        "python": sys.version.split()[0],
        "executable": sys.executable,
        "found": found,
        "broken": broken,
        "gpus": gpus,
        "seconds": round(time.monotonic() - began, 1),
    }


# ---------------------------------------------------------------------------- files


def write(path: Path, content: dict[str, Any]) -> None:
    """Write JSON that a reader sees whole or not at all."""
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(content))
    partial.rename(path)


def until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Wait until something is so; whether it came to be."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(_LOOK_S)
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

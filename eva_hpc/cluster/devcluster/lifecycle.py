"""Bring the throwaway cluster up, look at it, take it down."""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import subprocess
import tempfile
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

from eva_hpc.cluster.devcluster import hosts
from eva_hpc.cluster.devcluster.configuration import Layout, gres_conf, slurm_conf
from eva_hpc.cluster.devcluster.processes import DevclusterError, leftovers, program, running, start, stop, tail, wait_until

LONGEST_DIRECTORY = 68  # Slurm's sockets are in it, and the path of a socket may have 107 characters
PID_FILE_S = 10  # a daemon writes its pid file a little after it has gone into the background
LAST_FIRST_JOB_ID = 60_000_000  # Slurm's own MaxJobId is 67 million
JOB_IDS_PER_START = 100_000  # a later cluster in the same directory must not give old job ids to new jobs


@dataclass(frozen=True)
class Cluster:
    """A cluster that is up. `was_running` is False if this call started it; `limits` says what it cannot do on this machine."""

    directory: Path
    nodes: tuple[str, ...]
    cpus_per_node: int
    gpus_per_node: int
    limits: tuple[str, ...]
    was_running: bool
    seconds: float

    def environment(self) -> dict[str, str]:
        """What a client needs: Slurm's programs find the cluster by SLURM_CONF, and gloo must use the loopback device."""
        return {"SLURM_CONF": str(self.directory / "slurm.conf"), "GLOO_SOCKET_IFNAME": "lo"}


@dataclass(frozen=True)
class Status:
    """The cluster in a directory: pid of each daemon (None if it is not running) and Slurm's state of each node."""

    directory: Path
    daemons: dict[str, int | None]
    nodes: dict[str, str]

    @property
    def running(self) -> bool:
        """Whether every daemon runs; False also if there never was a cluster."""
        return bool(self.daemons) and None not in self.daemons.values()


def default_directory() -> Path:
    """The directory of this user's cluster when none is given. Short, because Slurm's sockets are in it."""
    return Path(tempfile.gettempdir()) / f"devcluster-{getpass.getuser()}"


def up(
    directory: Path | None = None, nodes: int = 4, cpus_per_node: int = 16, gpus_per_node: int = 8, timeout_s: float = 30
) -> Cluster:
    """Start a cluster and wait until all its nodes are idle; a cluster of the same shape that already runs is left as it is.

    Nodes are called node1, node2, …; CPUs, memory and GPUs (type a100) are pretended. Partitions: low (default) and high, which
    preempts low. There is no accounting, so `sacct` is off.

    Raises:
        DevclusterError: Slurm is not installed, the directory is not usable, a cluster of another shape runs in it, or a daemon
            does not come up; the message has the tail of its log.
    """
    began = time.monotonic()
    directory = _usable(directory or default_directory())
    if not (0 < nodes < 200 and cpus_per_node > 0 and gpus_per_node >= 0):
        raise DevclusterError("a cluster has 1 to 199 nodes with 1 or more CPUs and 0 or more GPUs")
    program("slurmctld")
    layout = _layout(directory)
    if layout and status(directory).running:
        shape = (layout.nodes, layout.cpus_per_node, layout.gpus_per_node)
        if shape != (nodes, cpus_per_node, gpus_per_node):
            found = f"{shape[0]} nodes with {shape[1]} CPUs and {shape[2]} GPUs"
            raise DevclusterError(f"a cluster of {found} runs in {directory}: take it down first")
        return _cluster(layout, was_running=True, seconds=time.monotonic() - began)
    down(directory)  # what is left of a cluster that lost a daemon
    first_job_id = (layout.first_job_id + JOB_IDS_PER_START) % LAST_FIRST_JOB_ID if layout else 1
    layout = _new_layout(directory, nodes, cpus_per_node, gpus_per_node, first_job_id)
    _write(layout)
    try:
        _start(layout, timeout_s)
    except DevclusterError:
        down(directory)
        raise
    return _cluster(layout, was_running=False, seconds=time.monotonic() - began)


def status(directory: Path | None = None) -> Status:
    """The state of the cluster in the directory; never fails because there is none."""
    directory = (directory or default_directory()).resolve()
    layout = _layout(directory)
    if layout is None:
        return Status(directory, {}, {})
    daemons = {name: running(file, f"{directory}/") for name, file in layout.daemons().items()}
    return Status(directory, daemons, _node_states(layout) if daemons["slurmctld"] else {})


def down(directory: Path | None = None) -> bool:
    """Cancel all jobs, stop the daemons and end what jobs left behind; logs stay. False if nothing was running."""
    directory = (directory or default_directory()).resolve()
    layout = _layout(directory)
    if layout is None:
        return False
    daemons = status(directory).daemons
    if daemons["slurmctld"]:
        _cancel_jobs(layout)
    processes = [pid for pid in daemons.values() if pid] + leftovers(directory)
    stop(processes, grace_s=1)
    wait_until(lambda: not stop(leftovers(directory), grace_s=0.2), timeout_s=5)  # what jobs forked meanwhile
    for pid_file in layout.daemons().values():
        pid_file.unlink(missing_ok=True)
    hosts.remove_names(_mark(directory))
    return bool(processes)


def _usable(directory: Path) -> Path:
    directory = directory.resolve()
    if len(str(directory)) > LONGEST_DIRECTORY or any(c.isspace() for c in str(directory)):
        raise DevclusterError(
            f"{directory}: Slurm's sockets need a path without spaces of at most {LONGEST_DIRECTORY} characters"
        )
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise DevclusterError(f"cannot make the cluster's directory: {error}") from None
    if directory.stat().st_uid != os.getuid():
        raise DevclusterError(f"{directory} belongs to another user")
    if _layout(directory) is None and any(directory.iterdir()):
        raise DevclusterError(f"{directory} has other files in it: choose a new or empty directory")
    return directory


def _new_layout(directory: Path, nodes: int, cpus: int, gpus: int, first_job_id: int) -> Layout:
    names = [f"node{number}" for number in range(1, nodes + 1)]
    hosts.add_names(names, _mark(directory))
    return Layout(
        directory=directory,
        user=getpass.getuser(),
        nodes=nodes,
        cpus_per_node=cpus,
        gpus_per_node=gpus,
        port=hosts.free_ports(nodes + 1, seed=zlib.crc32(str(directory).encode())),
        loopback=hosts.can_keep_to_loopback(),
        named=all(hosts.resolves_to_loopback(name) for name in names),
        device="/dev/tty" if all(Path(f"/dev/tty{index}").is_char_device() for index in range(gpus)) else "",
        first_job_id=first_job_id,
    )


def _write(layout: Layout) -> None:
    d = layout.directory
    for name in ("run", "state", "spool", "log"):
        shutil.rmtree(d / name, ignore_errors=True)
        (d / name).mkdir(mode=0o755)
    (d / "cluster.json").write_text(layout.to_json())
    layout.slurm_conf.write_text(slurm_conf(layout))
    (d / "gres.conf").write_text(gres_conf(layout))
    key = d / "run" / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))


def _start(layout: Layout, timeout_s: float) -> None:
    run, log, conf = layout.directory / "run", layout.directory / "log", str(layout.slurm_conf)
    munge = [
        f"--key-file={run}/munge.key",
        f"--socket={run}/munge.sock",
        f"--pid-file={run}/munged.pid",
        f"--seed-file={run}/seed",
    ]
    start([program("munged"), "--force", *munge, f"--log-file={log}/munged.log"], log / "munged.log")
    start([program("slurmctld"), "-f", conf], log / "slurmctld.log")
    for name in layout.names:
        start([program("slurmd"), "-N", name, "-f", conf], log / f"slurmd.{name}.log")

    began = time.monotonic()

    def ready() -> bool:
        for daemon, pid in status(layout.directory).daemons.items():
            if pid is None and time.monotonic() - began < PID_FILE_S:
                return False
            if pid is None:
                file = log / f"{daemon.replace(' ', '.')}.log"
                raise DevclusterError(f"{daemon} ended during start-up ({file}):\n{tail(file)}")
        states = _node_states(layout)
        return set(states) == set(layout.names) and set(states.values()) == {"idle"}

    if not wait_until(ready, timeout_s, interval_s=0.1):
        states = ", ".join(f"{name} {state}" for name, state in _node_states(layout).items()) or "slurmctld does not answer"
        raise DevclusterError(f"not all nodes are idle after {timeout_s:g} s ({states}):\n{tail(log / 'slurmctld.log')}")


def _client(layout: Layout, *command: str) -> str:
    """Output of one of Slurm's clients, or "" if it fails or does not answer."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SINFO", "SQUEUE", "SCANCEL"))
    }
    environment["SLURM_CONF"] = str(layout.slurm_conf)
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, env=environment).stdout
    except subprocess.TimeoutExpired:
        return ""


def _node_states(layout: Layout) -> dict[str, str]:
    lines = _client(layout, "sinfo", "-h", "-N", "-p", "low", "-o", "%N %T").splitlines()
    return dict(sorted(line.split() for line in lines))


def _cancel_jobs(layout: Layout) -> None:
    """Ask jobs to end, and give them a moment to do so."""
    jobs = _client(layout, "squeue", "-h", "-o", "%A").split()
    if jobs:
        _client(layout, "scancel", *jobs)
        wait_until(lambda: not _client(layout, "squeue", "-h", "-o", "%A"), timeout_s=2)


def _cluster(layout: Layout, *, was_running: bool, seconds: float) -> Cluster:
    limits = {
        "node names do not resolve, because /etc/hosts is not writable: use their address": not layout.named,
        "the host name does not mean 127.0.0.1, so the ports, guarded by munge, are open to the network": not layout.loopback,
        "CUDA_VISIBLE_DEVICES is not set in steps, because there are no terminals to pretend GPUs with": not layout.device,
        f"only {layout.user} can run jobs": layout.user != "root",
    }
    return Cluster(
        directory=layout.directory,
        nodes=tuple(layout.names),
        cpus_per_node=layout.cpus_per_node,
        gpus_per_node=layout.gpus_per_node,
        limits=tuple(limit for limit, holds in limits.items() if holds),
        was_running=was_running,
        seconds=seconds,
    )


def _layout(directory: Path) -> Layout | None:
    try:
        return Layout.from_json((directory / "cluster.json").read_text())
    except FileNotFoundError:
        return None


def _mark(directory: Path) -> str:
    return f"throwaway cluster {directory}"

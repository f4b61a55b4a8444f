"""Bring the throwaway cluster up, look at it, take it down."""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import tempfile
import time
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eva_hpc.cluster.devcluster import daemons, hosts
from eva_hpc.cluster.devcluster.configuration import Layout, gres_conf, slurm_conf, slurmdbd_conf
from eva_hpc.cluster.devcluster.processes import DevclusterError, leftovers, program, stop, tail, wait_until

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
    directory: Path | None = None,
    nodes: int = 4,
    cpus_per_node: int = 16,
    gpus_per_node: int = 8,
    timeout_s: float = 30,
    *,
    accounting: bool = False,
    enforce: bool = False,
    options: Mapping[str, str] | None = None,
) -> Cluster:
    """Start a cluster and wait until all its nodes are idle; a cluster of the same kind that already runs is left as it is.

    Nodes are called node1, node2, …; CPUs, memory and GPUs (type a100) are pretended. Partitions: low (default) and high, which
    preempts low. `options` are lines of slurm.conf that replace ours, such as {"MaxArraySize": "11", "SlurmdTimeout": "10"}.
    Without `accounting`, `sacct` is off; with it a start takes seconds, and `sacctmgr` can set limits, which hold if `enforce`.
    What is recorded lasts as long as the cluster.

    Raises:
        DevclusterError: Slurm is not installed, the directory is not usable, a cluster of another kind runs in it, or a daemon
            does not come up; the message has the tail of its log.
    """
    began = time.monotonic()
    directory = _usable(directory or default_directory())
    if not (0 < nodes < 200 and cpus_per_node > 0 and gpus_per_node >= 0):
        raise DevclusterError("a cluster has 1 to 199 nodes with 1 or more CPUs and 0 or more GPUs")
    if enforce and not accounting:
        raise DevclusterError("limits can only be enforced with accounting")
    program("slurmctld")
    if accounting:
        program("slurmdbd")
    before = Layout.read(directory)
    wanted = {
        "nodes": nodes,
        "cpus_per_node": cpus_per_node,
        "gpus_per_node": gpus_per_node,
        "accounting": accounting,
        "enforce": enforce,
        "options": dict(options or {}),
    }
    if before and status(directory).running:
        if any(asdict(before)[name] != value for name, value in wanted.items()):
            found = f"{before.nodes} nodes with {before.cpus_per_node} CPUs and {before.gpus_per_node} GPUs"
            found += (", accounting" if before.accounting else "") + (", limits" if before.enforce else "")
            found += "".join(f", {name}={value}" for name, value in before.options.items())
            raise DevclusterError(f"a cluster of {found} runs in {directory}: take it down first")
        return _cluster(before, was_running=True, seconds=time.monotonic() - began)
    down(directory)  # what is left of a cluster that lost a daemon
    first_job_id = (before.first_job_id + JOB_IDS_PER_START) % LAST_FIRST_JOB_ID if before else 1
    layout = _new_layout(directory, first_job_id, wanted)
    _write(layout)
    try:
        _start(layout, timeout_s)
    except BaseException:  # also Ctrl-C: half a cluster is of no use
        down(directory)
        raise
    return _cluster(layout, was_running=False, seconds=time.monotonic() - began)


def status(directory: Path | None = None) -> Status:
    """The state of the cluster in the directory; never fails because there is none."""
    directory = (directory or default_directory()).resolve()
    layout = Layout.read(directory)
    if layout is None:
        return Status(directory, {}, {})
    pids = {name: daemons.pid_of(layout, name) for name in layout.daemons()}
    return Status(directory, pids, daemons.node_states(layout) if pids["slurmctld"] else {})


def down(directory: Path | None = None) -> bool:
    """Cancel all jobs, stop the daemons and end what jobs left behind; logs stay. False if nothing was running."""
    directory = (directory or default_directory()).resolve()
    layout = Layout.read(directory)
    if layout is None:
        return False
    pids = {name: daemons.pid_of(layout, name) for name in layout.daemons()}
    if pids["slurmctld"]:
        _cancel_jobs(layout)
    processes = [pid for pid in pids.values() if pid] + leftovers(directory)
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
    if Layout.read(directory) is None and any(directory.iterdir()):
        raise DevclusterError(f"{directory} has other files in it: choose a new or empty directory")
    return directory


def _new_layout(directory: Path, first_job_id: int, wanted: Mapping[str, Any]) -> Layout:
    names = [f"node{number}" for number in range(1, wanted["nodes"] + 1)]
    hosts.add_names(names, _mark(directory))
    return Layout(
        directory=directory,
        user=getpass.getuser(),
        port=hosts.free_ports(len(names) + 2, seed=zlib.crc32(str(directory).encode())),
        loopback=hosts.can_keep_to_loopback(),
        named=all(hosts.resolves_to_loopback(name) for name in names),
        device="/dev/tty" if all(Path(f"/dev/tty{n}").is_char_device() for n in range(wanted["gpus_per_node"])) else "",
        first_job_id=first_job_id,
        **wanted,
    )


def _write(layout: Layout) -> None:
    d = layout.directory
    for name in ("run", "state", "spool", "log", "database"):
        shutil.rmtree(d / name, ignore_errors=True)
        (d / name).mkdir(mode=0o700 if name == "database" else 0o755)
    (d / "cluster.json").write_text(layout.to_json())
    layout.slurm_conf.write_text(slurm_conf(layout))
    (d / "gres.conf").write_text(gres_conf(layout))
    (d / "slurmdbd.conf").touch(mode=0o600)
    (d / "slurmdbd.conf").write_text(slurmdbd_conf(layout))
    key = d / "run" / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))


def _start(layout: Layout, timeout_s: float) -> None:
    daemons.start_munge(layout)
    if layout.accounting:
        daemons.start_database(layout)
        daemons.start_accounting(layout)
    daemons.start_controller(layout)
    for name in layout.names:
        daemons.start_slurmd(layout, name)

    log = layout.directory / "log"
    began = time.monotonic()

    def ready() -> bool:
        for daemon in layout.daemons():
            alive = daemons.pid_of(layout, daemon) is not None
            if not alive and time.monotonic() - began < PID_FILE_S:
                return False
            if not alive:
                file = log / f"{daemon.replace(' ', '.')}.log"
                raise DevclusterError(f"{daemon} ended during start-up ({file}):\n{tail(file)}")
        states = daemons.node_states(layout)
        return set(states) == set(layout.names) and set(states.values()) == {"idle"}

    if not wait_until(ready, timeout_s, interval_s=0.1):
        states = ", ".join(f"{name} {state}" for name, state in daemons.node_states(layout).items())
        states = states or "slurmctld does not answer"
        raise DevclusterError(f"not all nodes are idle after {timeout_s:g} s ({states}):\n{tail(log / 'slurmctld.log')}")


def _cancel_jobs(layout: Layout) -> None:
    """Ask jobs to end, and give them a moment to do so."""
    jobs = daemons.client(layout, "squeue", "-h", "-o", "%A").split()
    if jobs:
        daemons.client(layout, "scancel", *jobs)
        wait_until(lambda: not daemons.client(layout, "squeue", "-h", "-o", "%A"), timeout_s=2)


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


def _mark(directory: Path) -> str:
    return f"throwaway cluster {directory}"

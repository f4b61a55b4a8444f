"""The throwaway cluster's daemons, started one by one, and questions to the cluster through Slurm's clients."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

from eva_hpc.cluster.devcluster.configuration import CLUSTER, Layout
from eva_hpc.cluster.devcluster.processes import DevclusterError, program, running, start, tail, wait_until

SYSTEM_TABLES = Path("/usr/share/mysql/mysql_system_tables.sql")  # where Debian's mariadb-server-core has them
PERSONAL = ("SLURM", "SINFO", "SQUEUE", "SCANCEL", "SACCT")  # a user's settings, or those of another cluster


def start_munge(layout: Layout) -> None:
    """Authentication, with a key and a socket of the cluster's own."""
    run, log = layout.directory / "run", layout.directory / "log" / "munged.log"
    files = {"key-file": "munge.key", "socket": "munge.sock", "pid-file": "munged.pid", "seed-file": "seed"}
    options = [f"--{option}={run}/{name}" for option, name in files.items()]
    start([program("munged"), "--force", *options, f"--log-file={log}"], log)


def start_database(layout: Layout) -> None:
    """A new MariaDB that listens on nothing but a socket, in a directory that only its owner may enter: it needs no password.

    Nothing in it has to survive a crash of the machine, so it does not wait for the disk.
    """
    run, log, home = layout.directory / "run", layout.directory / "log" / "mariadbd.log", layout.directory / "database"
    (home / "data" / "mysql").mkdir(parents=True)
    command = [program("mariadbd"), "--no-defaults", f"--user={layout.user}", f"--datadir={home}/data", "--skip-networking"]
    command += ["--skip-grant-tables", "--innodb-log-file-size=8M", "--innodb-flush-log-at-trx-commit=0", "--debug-no-sync"]
    if not SYSTEM_TABLES.exists():
        raise DevclusterError(f"no {SYSTEM_TABLES}: accounting works with Debian's and Ubuntu's mariadb-server-core")
    start([*command, "--bootstrap"], log, timeout_s=30, stdin=b"use mysql;\n" + SYSTEM_TABLES.read_bytes())
    command += [f"--socket={home}/mariadb.sock", f"--pid-file={run}/mariadbd.pid"]
    start([program("setsid"), "--fork", *command], log)
    if not wait_until((home / "mariadb.sock").exists, timeout_s=20):
        raise DevclusterError(f"the database does not come up:\n{tail(log)}")


def start_accounting(layout: Layout) -> None:
    """slurmdbd on that database, and an account in which this user's jobs are recorded."""
    log = layout.directory / "log" / "slurmdbd.log"
    # It looks for its configuration beside slurm.conf, and cannot be told the database's socket in any other way.
    database = {"SLURM_CONF": str(layout.slurm_conf), "MYSQL_UNIX_PORT": f"{layout.directory}/database/mariadb.sock"}
    start([program("slurmdbd")], log, environment=os.environ | database)
    if not wait_until(lambda: _listens(layout.slurmdbd_port), timeout_s=20):
        raise DevclusterError(f"slurmdbd does not come up:\n{tail(log)}")
    user = ["user", layout.user, f"account={CLUSTER}", f"defaultaccount={CLUSTER}"]
    for what in (["cluster", CLUSTER], ["account", CLUSTER], user):
        if f" {CLUSTER}" not in client(layout, program("sacctmgr"), "--immediate", "add", *what, timeout_s=20):
            raise DevclusterError(f"sacctmgr cannot add the {what[0]} {what[1]}:\n{tail(log)}")


def start_controller(layout: Layout) -> None:
    """slurmctld; it goes on with the jobs that an earlier one in this directory knew."""
    start([program("slurmctld"), "-f", str(layout.slurm_conf)], layout.directory / "log" / "slurmctld.log")


def start_slurmd(layout: Layout, node: str) -> None:
    """The daemon of a pretended node."""
    start([program("slurmd"), "-N", node, "-f", str(layout.slurm_conf)], layout.directory / "log" / f"slurmd.{node}.log")


def pid_of(layout: Layout, daemon: str) -> int | None:
    """The pid of a daemon, named as in `Layout.daemons`; None if it is not running."""
    return running(layout.daemons()[daemon], daemon.split()[0], layout.directory)


def node_states(layout: Layout) -> dict[str, str]:
    """Slurm's state of each node, e.g. "idle" or "down*"; empty if the controller does not answer."""
    lines = client(layout, "sinfo", "-h", "-N", "-p", "low", "-o", "%N %T").splitlines()
    return dict(sorted(line.split() for line in lines))


def client(layout: Layout, *command: str, timeout_s: float = 5) -> str:
    """Output of one of Slurm's clients, or "" if it fails or does not answer."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(PERSONAL)}
    environment["SLURM_CONF"] = str(layout.slurm_conf)
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, env=environment).stdout
    except subprocess.TimeoutExpired:
        return ""


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0

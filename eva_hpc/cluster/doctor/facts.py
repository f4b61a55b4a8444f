"""What Slurm says of the cluster, asked once: a handful of calls, whatever the number of nodes or jobs."""

from __future__ import annotations

import getpass
import grp
import os
import time
from dataclasses import dataclass, field

from eva_hpc.cluster import queue

Fields = dict[str, str]

ASSOCIATION = ("Account", "Partition", "QOS", "DefaultQOS", "MaxJobs", "MaxSubmit", "GrpTRES", "MaxTRES", "MaxWall")
QOS = ("Name", "Flags", "GraceTime", "PreemptMode", "MaxWall", "MaxJobsPU", "MaxSubmitPU", "MaxTRESPU", "MaxTRES", "GrpTRES")


@dataclass(frozen=True)
class Facts:
    """Slurm's answers, as names and texts. `associations` and `qos` are None where accounting does not answer.

    `ping_s` is how long the controller took, `user` and `groups` who asks, `accounts_jobs` whether sacct works.
    """

    version: str
    ping_s: float
    config: Fields
    partitions: dict[str, Fields]
    nodes: dict[str, Fields]
    reservations: dict[str, Fields]
    accounts_jobs: bool
    associations: list[Fields] | None = None
    qos: dict[str, Fields] | None = None
    user: str = ""
    groups: frozenset[str] = field(default=frozenset())

    @property
    def default_partition(self) -> str | None:
        """The partition of jobs that name none."""
        return next((name for name, fields in self.partitions.items() if fields.get("Default") == "YES"), None)


def ask_slurm() -> Facts:
    """Ask for everything.

    Raises:
        ControllerAway: Slurm is not here, or does not answer.
        QueueError: one of its clients refused.
    """
    version = queue.version()
    asked = time.monotonic()
    config = queue.show_config()
    ping_s = time.monotonic() - asked
    user = getpass.getuser()
    return Facts(
        version=version,
        ping_s=ping_s,
        config=config,
        partitions=queue.show_all("partition"),
        nodes=queue.show_all("node"),
        reservations=queue.show_all("reservation"),
        accounts_jobs=_accounts_jobs(),
        associations=queue.account_manager("assoc", ASSOCIATION, "where", f"user={user}"),
        qos=_by_name(queue.account_manager("qos", QOS)),
        user=user,
        groups=frozenset(_group_names()),
    )


def _accounts_jobs() -> bool:
    try:
        return queue.sacct(["1"], timeout_s=15) is not None
    except queue.QueueError:
        return False


def _by_name(rows: list[Fields] | None) -> dict[str, Fields] | None:
    return None if rows is None else {row["Name"]: row for row in rows}


def _group_names() -> list[str]:
    names = []
    for number in {os.getgid(), *os.getgroups()}:
        try:
            names.append(grp.getgrgid(number).gr_name)
        except KeyError:  # a group without a name here
            continue
    return names

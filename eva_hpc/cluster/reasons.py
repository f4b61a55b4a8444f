"""Why Slurm lets a job wait, in words, and whether it can ever run.

Slurm says it in one word, e.g. "QOSMaxJobsPerUserLimit"; which words there are differs by release (squeue(1), "Job reason
codes").
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum


class Outlook(str, Enum):
    """What becomes of a job that waits for this reason."""

    STARTS = "starts by itself"
    OTHERS = "starts when the cluster's staff have acted"
    RELEASE = "starts when it is released"
    NEVER = "can never run as it is"


@dataclass(frozen=True)
class Reason:
    """A reason of Slurm's: its word, what it means, what becomes of the job, and what the user can do if anything."""

    code: str
    meaning: str
    outlook: Outlook
    advice: str = ""

    @property
    def is_stuck(self) -> bool:
        """Whether nothing happens unless the user does something."""
        return self.outlook in (Outlook.NEVER, Outlook.RELEASE)


_AGAIN = "change the site file, cancel the job, and run the command again"
_STARTS, _OTHERS, _RELEASE, _NEVER = Outlook.STARTS, Outlook.OTHERS, Outlook.RELEASE, Outlook.NEVER

_MEANINGS: dict[str, tuple[str, Outlook, str]] = {
    "None": ("Slurm has not looked at it yet", _STARTS, ""),
    "Priority": ("other jobs come first", _STARTS, ""),
    "Resources": ("it is next, once enough nodes are free", _STARTS, ""),
    "BeginTime": ("its time to begin has not come; Slurm delays a requeued job by some minutes", _STARTS, ""),
    "Dependency": ("it waits for other jobs of the sweep", _STARTS, ""),
    "JobArrayTaskLimit": ("as many jobs of its array run as the site's max_parallel allows", _STARTS, ""),
    "Cleaning": ("its last attempt is being cleaned up", _STARTS, ""),
    "Prolog": ("the nodes are being prepared for it", _STARTS, ""),
    "Licenses": ("it waits for a licence", _STARTS, ""),
    "Reservation": ("its reservation has not begun", _STARTS, ""),
    "ReservationDeleted": ("the reservation it asks for is gone", _NEVER, _AGAIN),
    "ReqNodeNotAvail": ("nodes that it needs are down, drained or reserved", _OTHERS, ""),
    "NodeDown": ("a node that it needs is down", _OTHERS, ""),
    "PartitionDown": ("its partition is down", _OTHERS, ""),
    "PartitionInactive": ("its partition is closed for now", _OTHERS, ""),
    "PartitionNodeLimit": ("it asks for more nodes than its partition allows, or for less than the least", _NEVER, _AGAIN),
    "PartitionTimeLimit": ("it asks for more time than its partition allows", _NEVER, _AGAIN),
    "PartitionConfig": ("it asks for more than its partition has or allows: nodes, time, CPUs, memory or GPUs", _NEVER, _AGAIN),
    "BadConstraints": ("no node is what it asks for", _NEVER, _AGAIN),
    "DependencyNeverSatisfied": ("the job that went ahead of it has failed", _NEVER, "mend that and run the command again"),
    "DeadLine": ("it cannot end before its deadline", _NEVER, _AGAIN),
    "AccountNotAllowed": ("its account may not use this partition", _NEVER, _AGAIN),
    "InvalidAccount": ("its account is not valid", _NEVER, _AGAIN),
    "QOSNotAllowed": ("its QOS may not be used by this account or in this partition", _NEVER, _AGAIN),
    "InvalidQOS": ("its QOS is not valid", _NEVER, _AGAIN),
    "JobHeldUser": ("it is held by its user, or by a release that is still to come", _RELEASE, "scontrol release JOB"),
    "JobHeldAdmin": ("it is held by an administrator", _OTHERS, "ask the cluster's staff"),
    "JobHoldMaxRequeue": ("it was requeued too often", _RELEASE, "scontrol release JOB"),
    "SystemFailure": ("Slurm, the file system or the network failed", _OTHERS, ""),
    "BurstBufferOperation": ("its burst buffer failed", _OTHERS, ""),
    "MaxMemPerLimit": ("it asks for more memory per node or CPU than is allowed", _NEVER, _AGAIN),
    "QOSMinGRES": ("it asks for fewer GPUs than its QOS demands", _NEVER, _AGAIN),
    "FrontEndDown": ("no front-end node is up", _OTHERS, ""),
}

# Families of words, the most telling first. What one job asks for beyond a limit stays beyond it; what all jobs of a user, an
# account or a QOS hold together becomes free again.
_FAMILIES: tuple[tuple[re.Pattern[str], str, Outlook, str], ...] = (
    (re.compile(r"requeued held|RequeueHold", re.I), "its start failed, and Slurm holds it", _RELEASE, "scontrol release JOB"),
    (
        re.compile(r"Nodes required .*(DOWN|DRAINED|reserved)", re.I),
        "nodes that it needs are down, drained or reserved",
        _OTHERS,
        "",
    ),
    (re.compile(r"partition not available", re.I), "its partition is closed for now", _OTHERS, ""),
    (re.compile(r"MaxWallDurationPerJob"), "it asks for more time than its account or QOS allows", _NEVER, _AGAIN),
    (re.compile(r"(PerJob|PerNode)(Limit)?$"), "it asks for more than its account or QOS allows to one job", _NEVER, _AGAIN),
    (re.compile(r"Min(CPU|Memory|GRES|Node|Billing)"), "it asks for less than its QOS demands", _NEVER, _AGAIN),
    (re.compile(r"MaxJobs|MaxSubmit|GrpJobs|GrpSubmit"), "as many jobs run or wait as the account or QOS allows", _STARTS, ""),
    (
        re.compile(r"(CPU|GRES|Node|Mem|BB|License|Billing|Energy)\w*Minutes|RunMin"),
        "the account's budget is used up or booked",
        _STARTS,
        "",
    ),
    (re.compile(r"^(QOS|Assoc|Max)"), "the account's or QOS's share is in use", _STARTS, ""),
    (re.compile(r"^Licenses|^Reserv"), "it waits for a licence or a reservation", _STARTS, ""),
)


def explain_reason(code: str) -> Reason:
    """A reason as squeue prints it, e.g. "Priority" or "ReqNodeNotAvail, UnavailableNodes:node3"; an unknown one is itself."""
    word, _, rest = re.sub(r"^\((.*)\)$", r"\1", code.strip()).partition(",")
    base, nodes = word.partition("(")[0].strip(), re.search(r"Unavailable\w*:\s*([^\s()]+)", code)
    if base in _MEANINGS:
        meaning, outlook, advice = _MEANINGS[base]
        return Reason(base, f"{meaning} ({nodes[1]})" if nodes else meaning, outlook, advice)
    for pattern, meaning, outlook, advice in _FAMILIES:
        if pattern.search(code):
            return Reason(base if not rest else code, meaning, outlook, advice)
    return Reason(code, f"Slurm says {code}", Outlook.STARTS)

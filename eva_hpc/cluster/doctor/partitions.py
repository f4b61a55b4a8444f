"""Whether the partitions, nodes, features and reservations that the site file names can run its jobs.

sbatch accepts much that can never run (too many nodes, too much time); this says so before.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime

from eva_hpc.cluster import queue
from eva_hpc.cluster.doctor.facts import Facts, Fields
from eva_hpc.cluster.doctor.finding import Finding, ok, problem, warning
from eva_hpc.cluster.doctor.kinds import Kind
from eva_hpc.cluster.doctor.values import count, features, gpu_types, gpus, in_service, listed, minutes, satisfies
from eva_hpc.config.errors import did_you_mean


def partitions_of(kind: Kind, facts: Facts) -> list[str]:
    """The partitions that a kind of jobs may run in, as the site file names them; the default one if it names none."""
    named = kind.shape.placement.partition or facts.default_partition
    return named.split(",") if named else []


def check_partition(name: str, facts: Facts) -> Finding:
    """Whether a partition is there and open to this user."""
    check = f"partition {name}"
    fields = facts.partitions.get(name)
    if fields is None:
        have = f"this cluster has {', '.join(facts.partitions)}{did_you_mean(name, facts.partitions)}"
        return problem(check, "there is none of this name", "no job can be submitted", f"set slurm.partition; {have}")
    if fields.get("State") != "UP":
        return problem(check, f"its state is {fields.get('State')}", "its jobs wait until it is opened", "name another one")
    groups = listed(fields.get("AllowGroups", "ALL"))
    if groups is not None and not facts.groups & set(groups) and os.getuid() != 0:
        return problem(check, f"open to the groups {', '.join(groups)}", f"{facts.user} is in none of them", "name another one")
    if fields.get("RootOnly") == "YES" and os.getuid() != 0:
        return problem(check, "open to root only", "jobs are refused", "name another one")
    limit = minutes(fields.get("MaxTime", "UNLIMITED"))
    time = "without a time limit" if limit is None else f"at most {fields['MaxTime']} a job"
    return ok(check, f"up, {fields.get('TotalNodes', '?')} nodes, {time}")


def check_kind(kind: Kind, facts: Facts) -> list[Finding]:
    """Whether jobs of a kind fit where they are sent."""
    names = partitions_of(kind, facts)
    if not names:
        means = "no job can be submitted"
        return [
            problem("partition", "the cluster has no default one", means, f"set slurm.partition: {', '.join(facts.partitions)}")
        ]
    there = [name for name in names if name in facts.partitions]
    if not there:
        return []
    in_each = [list(_misfits(kind, facts.partitions[name], facts)) for name in there]
    best = min(in_each, key=len)  # Slurm takes the partition that has room
    found = [*best] if best else [ok(kind.title, kind.size, "fits")]
    found += _check_features(kind, there, facts) + _check_exclude(kind, facts) + _check_reservation(kind, facts)
    return found


def _misfits(kind: Kind, fields: Fields, facts: Facts) -> Iterator[Finding]:
    """What a partition lacks or forbids for a kind of jobs."""
    shape, place, name = kind.shape, kind.shape.placement, fields["PartitionName"]
    check = f"{kind.title} in {name}"
    limit = minutes(fields.get("MaxTime", "UNLIMITED"))
    if limit is not None and shape.time_minutes > limit:
        found = f"ask for {shape.time_minutes} min, allowed are {limit:g}"
        yield problem(check, found, "they would wait for ever (PartitionTimeLimit)", f"set slurm.time_minutes: {int(limit)}")
    most = count(fields.get("MaxNodes", "UNLIMITED"))
    if most is not None and shape.nodes > most:
        found = f"ask for {shape.nodes} nodes, allowed are {most}"
        yield problem(check, found, "they would wait for ever (PartitionNodeLimit)", "give the stages fewer nodes")
    least = count(fields.get("MinNodes", "0")) or 0
    if shape.nodes < least:
        found = f"ask for {shape.nodes} nodes, at least {least} are asked for"
        yield problem(check, found, "they would wait for ever (PartitionNodeLimit)", "name another partition")
    if fields.get("ReqResv") == "YES" and not place.reservation:
        yield problem(check, "takes jobs with a reservation only", "jobs are refused", "set slurm.reservation")
    for key, value, what in (("Accounts", place.account, "account"), ("Qos", place.qos, "qos")):
        allowed, denied = listed(fields.get(f"Allow{key}", "ALL")), listed(fields.get(f"Deny{key}", "")) or []
        if value is None and allowed is not None:
            do = f"set slurm.{what}: {' or '.join(allowed[:5])}"
            yield warning(check, f"open to some only: {', '.join(allowed)}", f"your default {what} may be none of them", do)
        elif value is not None and ((allowed is not None and value not in allowed) or value in denied):
            yield problem(check, f"not open to the {what} {value}", "jobs are refused", "name another partition")
    yield from _lacking_nodes(kind, name, facts)


def too_few_in_service(kind: Kind, facts: Facts) -> bool:
    """Whether a kind of jobs could run if only all nodes were in service."""
    names = [name for name in partitions_of(kind, facts) if name in facts.partitions]
    fits = [_fitting(kind, name, facts) for name in names]
    enough = [fit for fit in fits if len(fit) >= kind.shape.nodes]
    return bool(enough) and all(len(_in_service(fit)) < kind.shape.nodes for fit in enough)


def _lacking_nodes(kind: Kind, partition: str, facts: Facts) -> Iterator[Finding]:
    shape, check = kind.shape, f"{kind.title} in {partition}"
    here, fit = _nodes_of(partition, facts), _fitting(kind, partition, facts)
    if len(fit) < shape.nodes:
        wanted = f"ask for {kind.size}; {len(fit)} of {len(here)} nodes have that"
        largest = f"the largest node: {max((int(node.get('CPUTot', 0)) for node in here), default=0)} CPUs"
        largest += f", {max((int(node.get('RealMemory', 0)) for node in here), default=0) / 1024:.3g} GB"
        if shape.gpus_per_node:
            types = sorted(set().union(*(gpu_types(node.get("Gres", "")) for node in here)))
            most = max((gpus(node.get("Gres", ""), None) for node in here), default=0)
            largest += f", {most} GPUs" + (f" (types: {', '.join(types)})" if types else "")
        lacking = sorted(set().union(*(_lacks(node, kind) for node in here)))
        short = f"with enough {' and '.join(lacking)}" if lacking else "at all, or too many excluded"
        means = f"they can never run: there are too few nodes {short}"
        yield problem(check, wanted, means, f"lower threads, ranks_per_node, nodes or slurm.mem_gb of these stages; {largest}")
        return
    ready = _in_service(fit)
    if len(ready) < shape.nodes:
        found = f"{shape.nodes} nodes are asked for; of {len(fit)} that fit, {len(ready)} are in service"
        yield warning(check, found, "jobs wait until nodes come back", "ask the cluster's staff when they do")


def _nodes_of(partition: str, facts: Facts) -> list[Fields]:
    return [node for node in facts.nodes.values() if partition in node.get("Partitions", "").split(",")]


def _fitting(kind: Kind, partition: str, facts: Facts) -> list[Fields]:
    """The nodes of a partition that a kind of jobs could use, in service or not."""
    excluded = set(_expanded(kind.shape.placement.exclude))
    return [node for node in _nodes_of(partition, facts) if not _lacks(node, kind) and node["NodeName"] not in excluded]


def _in_service(nodes: list[Fields]) -> list[Fields]:
    return [node for node in nodes if in_service(node.get("State", ""))]


def _lacks(node: Fields, kind: Kind) -> set[str]:
    """What a node is too small for."""
    shape, place = kind.shape, kind.shape.placement
    lacks = set()
    if int(node.get("CPUTot", 0)) < shape.cpus_per_node:
        lacks.add("CPUs")
    if shape.mem_gb and int(node.get("RealMemory", 0)) < 1024 * shape.mem_gb:
        lacks.add("memory")
    if gpus(node.get("Gres", ""), place.gpu_type) < shape.gpus_per_node:
        lacks.add("GPUs")
    if place.constraint and not satisfies(_features(node), place.constraint):
        lacks.add("features")
    return lacks


def _check_features(kind: Kind, partitions: list[str], facts: Facts) -> list[Finding]:
    wanted = kind.shape.placement.constraint
    if not wanted:
        return []
    here = [node for node in facts.nodes.values() if set(node.get("Partitions", "").split(",")) & set(partitions)]
    known = set().union(*(_features(node) for node in here))
    unknown = sorted(features(wanted) - known)
    check = f"constraint {wanted}"
    if unknown:
        do = f"change slurm.constraint; these nodes have {', '.join(sorted(known)) or 'no features'}"
        return [problem(check, f"no node of {', '.join(partitions)} has {', '.join(unknown)}", "sbatch refuses the jobs", do)]
    return [ok(check, "there are nodes with these features")]


def _check_exclude(kind: Kind, facts: Facts) -> list[Finding]:
    text = kind.shape.placement.exclude
    if not text:
        return []
    unknown = [name for name in _expanded(text) if name not in facts.nodes]
    if unknown:
        do = "correct slurm.exclude: node names as `sinfo -N` shows them"
        return [problem(f"exclude {text}", f"no such node: {', '.join(unknown)}", "sbatch refuses the jobs", do)]
    return [ok(f"exclude {text}", "these nodes are there")]


def _check_reservation(kind: Kind, facts: Facts) -> list[Finding]:
    name = kind.shape.placement.reservation
    if not name:
        return []
    check, fields = f"reservation {name}", facts.reservations.get(name)
    if fields is None:
        have = ", ".join(facts.reservations) or "none"
        return [
            problem(check, f"there is none of this name; there is: {have}", "jobs are refused", "correct slurm.reservation")
        ]
    users, accounts = listed(fields.get("Users", "")), listed(fields.get("Accounts", ""))
    mine = {row["Account"] for row in facts.associations or []} | {kind.shape.placement.account}
    if facts.user not in (users or []) and not mine & set(accounts or []):
        whose = ", ".join((users or []) + (accounts or [])) or "others"
        return [problem(check, f"it is for {whose}, not for {facts.user}", "jobs are refused", "ask to be added to it")]
    end = fields.get("EndTime", "")
    if fields.get("State") != "ACTIVE":
        return [warning(check, f"its state is {fields.get('State')}", f"jobs wait; it begins {fields.get('StartTime')}")]
    if end > datetime.now().isoformat(timespec="seconds"):
        return [ok(check, f"active until {end}")]
    return [warning(check, f"it ended {end}", "jobs wait for ever", "take slurm.reservation out")]


def _features(node: Fields) -> set[str]:
    return {name for name in node.get("AvailableFeatures", "").split(",") if name not in ("", "(null)")}


def _expanded(nodelist: str | None) -> list[str]:
    if not nodelist:
        return []
    try:
        return queue.hostnames(nodelist)
    except queue.QueueError:
        return [nodelist]

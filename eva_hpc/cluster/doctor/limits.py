"""Account, QOS and their limits, and what sbatch itself says to each kind of jobs."""

from __future__ import annotations

import tempfile
from pathlib import Path

from eva_hpc.cluster import queue
from eva_hpc.cluster.doctor.facts import Facts, Fields
from eva_hpc.cluster.doctor.finding import Finding, ok, problem, warning
from eva_hpc.cluster.doctor.kinds import Kind
from eva_hpc.cluster.doctor.values import count, minutes
from eva_hpc.config.errors import did_you_mean
from eva_hpc.config.site import Site


def check_account(kind: Kind, facts: Facts) -> list[Finding]:
    """Whether account and QOS of a kind of jobs are this user's, and allow what it asks for."""
    place = kind.shape.placement
    if not facts.associations or facts.qos is None:
        if place.account or place.qos:
            named = " and ".join(f"{what} {value}" for what, value in (("account", place.account), ("qos", place.qos)) if value)
            return [
                warning("account", f"{named}: not checkable, accounting does not answer", "a wrong one shows at submission")
            ]
        return [ok("account", "not checkable: accounting does not answer; the site names neither account nor qos")]
    rows = [row for row in facts.associations if place.account in (None, row["Account"])]
    check = f"account {place.account or '(default)'}, qos {place.qos or '(default)'}"
    if not rows:
        yours = sorted({row["Account"] for row in facts.associations})
        do = f"set slurm.account; yours: {', '.join(yours)}{did_you_mean(place.account or '', yours)}"
        return [_not_ours(check, f"{facts.user} is not in the account {place.account}", do, "associations", facts)]
    allowed = {name for row in rows for name in row["QOS"].split(",") if name}
    if place.qos and place.qos not in allowed:
        do = f"set slurm.qos; yours: {', '.join(sorted(allowed)) or 'none'}"
        return [_not_ours(check, f"the account may not use the qos {place.qos}", do, "qos", facts)]
    qos = facts.qos.get(place.qos or next((row["DefaultQOS"] for row in rows if row["DefaultQOS"]), "") or "normal", {})
    beyond = [*_beyond(kind, qos, "the qos"), *(finding for row in rows[:1] for finding in _beyond(kind, row, "the account"))]
    return beyond or [ok(check, "yours, and its limits leave room")]


def _not_ours(check: str, found: str, do: str, what: str, facts: Facts) -> Finding:
    """A wrong account or QOS: refused where the cluster enforces them, else accepted and charged to nobody."""
    if what in facts.config.get("AccountingStorageEnforce", "none"):
        return problem(check, found, "jobs are refused", do)
    return warning(check, found, "this cluster does not enforce it: jobs run, but are booked where nobody expects them", do)


def _beyond(kind: Kind, limits: Fields, whose: str) -> list[Finding]:
    """What a kind of jobs asks for beyond the limits of a QOS or an association."""
    shape, check, found = kind.shape, f"limits of {whose}", []
    wall = minutes(limits.get("MaxWall", ""))
    if wall and shape.time_minutes > wall:
        text = f"{kind.title} ask for {shape.time_minutes} min, {whose} allows {wall:g}"
        found.append(problem(check, text, "they are refused or never start", f"set slurm.time_minutes: {int(wall)}"))
    for key, what in (("GrpTRES", "to all jobs together"), ("MaxTRESPU", "to a user's jobs together"), ("MaxTRES", "to a job")):
        most = tres(limits.get(key, ""))
        for name, asked in (("gres/gpu", shape.gpus), ("cpu", shape.nodes * shape.cpus_per_node), ("node", shape.nodes)):
            if name in most and asked > most[name]:
                text = f"{kind.title} ask for {asked} {name}, {whose} allows {most[name]} {what} ({key})"
                found.append(problem(check, text, "they can never run", "give these stages less, or name another qos"))
    most_jobs = count(limits.get("MaxSubmitPU", limits.get("MaxSubmit", "")))
    if most_jobs and kind.jobs and kind.jobs > most_jobs:
        text = f"the sweep has {kind.jobs} {kind.title}, {whose} allows {most_jobs} in the queue"
        means = "the launcher submits what fits and the rest as jobs end; it has to stay"
        found.append(warning(check, text, means, "", "the launcher must run until the last job is submitted"))
    return found


def tres(text: str) -> dict[str, int]:
    """Amounts by name of "cpu=128,gres/gpu=16"; amounts with units, as of memory, are left out."""
    pairs = (pair.partition("=") for pair in text.split(",") if pair)
    return {name: int(value) for name, _, value in pairs if value.isdigit()}


def check_acceptance(kind: Kind, site: Site, nodes_away: bool = False) -> Finding:
    """What sbatch says to the script of a real submission, without submitting it.

    With `nodes_away`, too few of the nodes that fit are in service: a test is refused then, but a real job is taken and waits.
    """
    from eva_hpc.cluster.submission import submission_text

    array = kind.array.model_copy(update={"after": (), "along": None, "canary": None})
    check = f"sbatch, {kind.title}"
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "doctor.sh"
        script.write_text(submission_text(array, site, Path(folder), "doctor"))
        try:
            said = queue.would_start(script)
        except queue.ControllerAway:
            raise
        except queue.QueueError as error:
            if nodes_away and "node configuration is not available" in str(error):
                return warning(check, f"cannot run {kind.size} now: {error}", "jobs are taken, and wait until nodes come back")
            do = "correct the site file's slurm: section"
            return problem(check, f"refuses {kind.size}: {error}", "the sweep cannot be submitted", do)
    start = said.partition(" to start at ")[2]
    return ok(check, f"accepts {kind.size}", f"would start at {start}" if start else said)

"""What the cluster's configuration means for a sweep."""

from __future__ import annotations

import re

from eva_hpc.cluster.doctor.facts import Facts
from eva_hpc.cluster.doctor.finding import Finding, ok, problem, warning
from eva_hpc.cluster.doctor.kinds import Kind
from eva_hpc.cluster.doctor.values import seconds
from eva_hpc.config.site import Site

_OLDEST = (20, 11)
"""The first release with ``srun --overlap``."""

_SLOW_S = 2.0
_CRED_EXPIRE_S = 120
_LONG_HANG_S = 600
_SHORT_MEMORY_S = 60


def check_controller(facts: Facts, site: Site, kinds: list[Kind]) -> list[Finding]:
    """Version, answer and settings of the controller."""
    config = facts.config
    return [
        _version(facts.version),
        _answer(facts.ping_s),
        _arrays(config, kinds),
        _requeue(config, site),
        _dead_nodes(config),
        _accounting(facts),
        _limits_enforced(config),
        _dependencies(config),
    ]


def _version(text: str) -> Finding:
    numbers = tuple(int(number) for number in re.findall(r"\d+", text)[:2])
    oldest = ".".join(map(str, _OLDEST))
    if numbers < _OLDEST:
        means = f"stages start by `srun --overlap`, which Slurm has since {oldest}"
        return problem("Slurm's version", text, means, "ask for a newer Slurm")
    return ok("Slurm's version", text)


def _answer(ping_s: float) -> Finding:
    found = f"answered in {ping_s:.2g} s"
    if ping_s > _SLOW_S:
        means = "the controller is busy: submitting and watching are slow"
        return warning("controller", found, means, "", "status is late by some seconds")
    return ok("controller", found)


def _arrays(config: dict[str, str], kinds: list[Kind]) -> Finding:
    largest = int(config.get("MaxArraySize", "1001"))
    found = f"MaxArraySize is {largest}"
    if largest < 2:
        means = "this cluster takes no job arrays, and sweeps are submitted as arrays"
        return problem("job arrays", found, means, "ask the cluster's staff to allow them")
    jobs = max((kind.jobs or 0 for kind in kinds), default=0)
    return ok("job arrays", found, f"{jobs} jobs of one kind are submitted in several arrays" if jobs > largest else "")


def _requeue(config: dict[str, str], site: Site) -> Finding:
    delay = cred_expire_s(config.get("AuthInfo", ""))
    found = f"a requeued job starts again after {delay + 1} s at the earliest; JobRequeue is {config.get('JobRequeue', '?')}"
    if site.slurm.additional.get("requeue") is False or "no-requeue" in site.slurm.additional:
        means = "slurm.additional turns requeue off: a job that is preempted, or whose node dies, is not started again by Slurm"
        return warning("requeue", found, means, "take it out", "jobs come back only when the sweep's command is run again")
    return ok("requeue", found)


def _dead_nodes(config: dict[str, str]) -> Finding:
    timeout = seconds(config.get("SlurmdTimeout", "300"))
    if timeout == 0:
        means = "Slurm never notices that a node has died: a job there hangs until its time limit"
        return warning("dead nodes", "SlurmdTimeout is 0", means, "keep time_minutes short", "dead nodes hold jobs for long")
    found = f"noticed after {timeout} s (SlurmdTimeout)"
    if timeout > _LONG_HANG_S:
        return warning("dead nodes", found, "a job on a node that dies hangs that long", "", "dead nodes hold jobs for long")
    return ok("dead nodes", found)


def _accounting(facts: Facts) -> Finding:
    age = seconds(facts.config.get("MinJobAge", "300"))
    if facts.accounts_jobs:
        return ok("accounting", "sacct works")
    found = f"sacct does not work; the controller remembers an ended job for {age} s (MinJobAge)"
    means = "why a job ended, and what it used, is known only from what the jobs themselves write down"
    if age < _SHORT_MEMORY_S:
        means += ", and Slurm forgets them so soon that the watching launcher can miss it"
    return warning("accounting", found, means, "", "causes of failures and GPU hours come from the ledger only")


def _limits_enforced(config: dict[str, str]) -> Finding:
    enforced = config.get("EnforcePartLimits", "NO")
    means = "" if enforced != "NO" else "sbatch takes jobs that can never run; the checks of partitions below find those"
    return ok("limits at submission", f"EnforcePartLimits is {enforced}", means)


def _dependencies(config: dict[str, str]) -> Finding:
    kills = "kill_invalid_depend" in config.get("DependencyParameters", "")
    if kills:
        return ok("dependencies", "a job whose dependency can never be fulfilled is cancelled (kill_invalid_depend)")
    return ok(
        "dependencies", "a job whose dependency can never be fulfilled stays queued", "the launcher clears such jobs away"
    )


def cred_expire_s(auth_info: str) -> int:
    """Seconds by which Slurm delays the next start of a requeued job: cred_expire of AuthInfo, 120 if not set."""
    match = re.search(r"cred_expire=(\d+)", auth_info)
    return int(match[1]) if match and int(match[1]) >= 5 else _CRED_EXPIRE_S


def check_preemption(facts: Facts, partition: str) -> Finding:
    """What happens to jobs of a partition when more important ones come."""
    fields, check = facts.partitions[partition], f"preemption in {partition}"
    kind, mode = facts.config.get("PreemptType", "preempt/none"), fields.get("PreemptMode", "OFF")
    tiers = [int(one.get("PriorityTier", "1")) for one in facts.partitions.values()]
    tier = int(fields.get("PriorityTier", "1"))
    if kind == "preempt/none" or mode == "OFF" or (kind == "preempt/partition_prio" and tier >= max(tiers)):
        return ok(check, "jobs are not preempted")
    grace = seconds(fields.get("GraceTime", "0"))
    if kind == "preempt/qos" and facts.qos:
        grace = max([grace, *(seconds(one["GraceTime"]) for one in facts.qos.values())])
    kill = seconds(facts.config.get("KillWait", "30"))
    if "SUSPEND" in mode or "GANG" in mode:
        return ok(check, f"jobs are suspended and go on later ({mode})", "the time limit goes on while they are suspended")
    if "CANCEL" in mode:
        means = "a preempted job is cancelled; its stages keep their chunks and checkpoints"
        return warning(check, mode, means, "use another partition for long sweeps", "preempted jobs need the command again")
    if grace and "preempt_send_user_signal" in facts.config.get("SlurmctldParameters", ""):
        return ok(check, f"jobs are told to save {grace} s before they are requeued", f"then {kill} s until they are killed")
    why = "no preempt_send_user_signal" if grace else "GraceTime is 0"
    means = f"a preempted job has no time to save ({why}): what it did since the last chunk or checkpoint is lost"
    do = "make engine.checkpoint_minutes short, or use a partition without preemption"
    return warning(check, f"{mode}, GraceTime {grace} s", means, do, "preemption loses work since the last checkpoint")


def check_signal(facts: Facts, site: Site, kinds: list[Kind], checkpoint_s: float | None = None) -> Finding:
    """Whether stages are told early enough before the time limit; `checkpoint_s` is what one checkpoint takes, if known."""
    delay, shortest = site.slurm.signal_delay_s, min(60 * kind.shape.time_minutes for kind in kinds)
    kill = seconds(facts.config.get("KillWait", "30"))
    check = "time to save"
    found = f"told {delay} s before the limit of {shortest // 60} min, killed {kill} s after it (KillWait)"
    if delay >= shortest:
        means = "stages are told to save as soon as they start: they never get on"
        return problem(check, found, means, "raise slurm.time_minutes or lower slurm.signal_delay_s")
    if checkpoint_s is not None and checkpoint_s > delay:
        means = f"a checkpoint takes about {checkpoint_s:.0f} s: the last one is not finished when the job is killed"
        return warning(check, found, means, f"raise slurm.signal_delay_s to {2 * checkpoint_s:.0f}", "time limits lose work")
    if delay > shortest / 2:
        means = "more than half of each attempt is left for saving"
        return warning(check, found, means, "raise slurm.time_minutes or lower slurm.signal_delay_s", "most time is unused")
    saving = f"a checkpoint takes about {checkpoint_s:.0f} s" if checkpoint_s is not None else ""
    return ok(check, found, saving)

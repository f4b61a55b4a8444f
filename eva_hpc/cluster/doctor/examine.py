"""All checks of a site, in the order in which they build on each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from eva_hpc.cluster import queue
from eva_hpc.cluster.doctor.answers import check_probe
from eva_hpc.cluster.doctor.controller import check_controller, check_preemption, check_signal
from eva_hpc.cluster.doctor.facts import ask_slurm
from eva_hpc.cluster.doctor.finding import Finding, Level, ok, problem, warning
from eva_hpc.cluster.doctor.here import check_disk, check_git, check_hub_cache, check_machine, check_root
from eva_hpc.cluster.doctor.kinds import Kind, kinds_of_plan, kinds_of_site
from eva_hpc.cluster.doctor.limits import check_acceptance, check_account
from eva_hpc.cluster.doctor.partitions import check_kind, check_partition, partitions_of, too_few_in_service
from eva_hpc.cluster.doctor.probing import Probe, run_probes
from eva_hpc.config.site import Site, Software
from eva_hpc.config.sweep import Experiment
from eva_hpc.plan.disk import CHECKPOINT_BYTES
from eva_hpc.plan.plan import Plan

_LIGHT = ("eva_hpc", "pydantic", "orjson")
_COMPUTING = {"generate", "score", "response_logps", "evolve", "rewrite", "train", "start_policy", "answer"}
_TRAINING = {"train", "start_policy"}


@dataclass(frozen=True)
class Examination:
    """What was found."""

    site: str
    findings: tuple[Finding, ...]

    @property
    def degrades(self) -> list[str]:
        """What a sweep does without here."""
        return list(dict.fromkeys(finding.degrades for finding in self.findings if finding.degrades))

    @property
    def works(self) -> bool:
        """Whether there is no problem."""
        return all(finding.level is not Level.PROBLEM for finding in self.findings)


def examine(
    site: Site,
    experiment: Experiment | None = None,
    plan: Plan | None = None,
    probe: bool = True,
    note: Callable[[str], None] = lambda text: None,
) -> Examination:
    """Check a site, for a sweep if one is given.

    Args:
        site: what is checked.
        experiment: the sweep.
        plan: its plan.
        probe: submit probe jobs too.
        note: told what is waited for.
    """
    findings = [*check_root(site), check_git()]
    writable = all(finding.level is not Level.PROBLEM for finding in findings)
    if experiment is not None:
        findings.append(check_hub_cache(experiment, site))
    if experiment is not None and plan is not None and writable:
        findings.append(check_disk(experiment, plan, site))
    if site.executor == "local":
        findings += check_machine(site, [name for name in _packages(site, experiment, site.software) if name != "eva_hpc"])
    else:
        findings += _check_slurm(site, experiment, plan, probe and writable, note)
    return Examination(site.name, tuple(dict.fromkeys(findings)))


def _check_slurm(
    site: Site, experiment: Experiment | None, plan: Plan | None, probe: bool, note: Callable[[str], None]
) -> list[Finding]:
    try:
        facts = ask_slurm()
    except queue.QueueError as error:
        do = "run this on the cluster's login node; if it is one, ask whether Slurm is down"
        return [problem("controller", str(error), "nothing can be submitted from here now", do)]
    largest = int(facts.config.get("MaxArraySize", "1001"))
    kinds = kinds_of_plan(plan, site, largest) if plan is not None else kinds_of_site(site)
    findings = check_controller(facts, site, kinds)
    for name in dict.fromkeys(name for kind in kinds for name in partitions_of(kind, facts)):
        findings.append(check_partition(name, facts))
        if name in facts.partitions:
            findings.append(check_preemption(facts, name))
    sound = []
    for kind in kinds:
        of_kind = [*check_kind(kind, facts), *check_account(kind, facts)]
        of_kind.append(check_acceptance(kind, site, nodes_away=too_few_in_service(kind, facts)))
        findings += of_kind
        if all(finding.level is not Level.PROBLEM for finding in of_kind):
            sound.append(kind)
    probes: list[Probe] = []
    if probe:
        findings += _probed(site, experiment, sound, note, probes)
    else:
        findings.append(ok("probe job", "none was submitted: what compute nodes see and have is not known"))
    findings.append(check_signal(facts, site, kinds, _checkpoint_s(experiment, probes)))
    return findings


def _probed(
    site: Site, experiment: Experiment | None, kinds: list[Kind], note: Callable[[str], None], probes: list[Probe]
) -> list[Finding]:
    def needed(software: Software) -> list[str]:
        return _packages(site, experiment, software)

    if not kinds:
        return [warning("probe job", "none was submitted: Slurm would refuse all jobs", "compute nodes are not known")]
    try:
        probes += run_probes(site, kinds, needed, note)
    except (queue.QueueError, OSError) as error:
        return [problem("probe job", str(error), "compute nodes are not known", "try again")]
    needs_hub = site.scale == "full" if experiment is None else _needs_hub(experiment)
    return [finding for one in probes for finding in check_probe(one, site, needed, needs_hub, len(probes))]


def _needs_hub(experiment: Experiment) -> bool:
    from eva_hpc.config.hub import needs

    return bool(needs(experiment))


def _packages(site: Site, experiment: Experiment | None, software: Software) -> list[str]:
    """The packages that an environment must have, by the stages that use it."""
    from eva_hpc.stages.registry import STAGES

    stages = {stage for stage in STAGES if site.software_of(stage) == software}
    names = list(_LIGHT)
    if stages & _COMPUTING:
        names += ["torch", "transformers"]
    if stages & _TRAINING:
        names.append("deepspeed")
    if experiment is not None and stages & _stages_on_vllm(experiment):
        names.append("vllm")
    return names


def _stages_on_vllm(experiment: Experiment) -> set[str]:
    from eva_hpc.config.reward import parts

    stages: set[str] = set()
    for _, recipe in experiment.points:
        engines = [
            (recipe.generation, {"generate", "answer"}),
            (recipe.creator.evolver, {"evolve"}),
            (recipe.rewriter and recipe.rewriter.by, {"rewrite"}),
            *((part, {"score"}) for _, part in parts(recipe.reward)),
        ]
        for section, users in engines:
            if getattr(section, "engine", "") == "vllm":
                stages |= users
    return stages


def _checkpoint_s(experiment: Experiment | None, probes: list[Probe]) -> float | None:
    """Seconds of writing a checkpoint of the sweep's policy from one node, if its size and the speed of files are known."""
    from eva_hpc.config.model_size import sizes_of

    speeds = [probe.answer["files"]["mb_per_s"] for probe in probes if probe.answer]
    if experiment is None or not speeds:
        return None
    sizes = sizes_of(recipe for _, recipe in experiment.points).models
    paths = {str(getattr(recipe.policy, "path", "")) for _, recipe in experiment.points}
    largest = max((sizes[path].count for path in paths if path in sizes), default=None)
    return None if largest is None else CHECKPOINT_BYTES["bf16"] * largest / (min(speeds) * 1e6)

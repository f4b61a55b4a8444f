"""What this machine has: folders, disk, git, the cache of the hub; for sites that run here also cores, memory and packages."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.filesize import decimal

from eva_hpc.cluster.doctor.finding import Finding, ok, problem, warning
from eva_hpc.cluster.probe import files
from eva_hpc.config.site import Site
from eva_hpc.config.sweep import Experiment
from eva_hpc.plan.disk import disk_needed, shortage
from eva_hpc.plan.jobs import pending_tasks
from eva_hpc.plan.plan import Plan
from eva_hpc.store.artifacts import Store
from eva_hpc.store.inventory import Inventory

_LITTLE_SPACE_GB = 10.0
_GB_PER_PROCESS = 2.0


def check_root(site: Site) -> list[Finding]:
    """Whether this user can write below root, what its file system can do, and how much room there is."""
    root = Path(site.root).absolute()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=root) as folder:
            abilities = files(Path(folder))
    except OSError as error:
        return [problem("root", str(error), "nothing can be written there", "set root to a folder that is yours")]
    broken = [f"{name}: {abilities[name]}" for name in ("link", "rename", "lock") if abilities[name]]
    free = shutil.disk_usage(root).free / 1e9
    found = f"{root}: {free:.0f} GB free"
    if broken:
        return [
            problem("root", f"{root}: {'; '.join(broken)}", "the store cannot work there", "set root to another file system")
        ]
    if free < _LITTLE_SPACE_GB:
        return [warning("root", found, "a sweep may fill the disk", "make room (eva-hpc gc), or set another root")]
    return [ok("root", found)]


def check_git() -> Finding:
    """Whether results can say which commit they come from."""
    from eva_hpc.cluster.execution import versions

    if shutil.which("git") is None:
        return warning("git", "not installed here", "results do not say which commit they come from", "install git")
    commit = versions()["git_commit"]
    if commit is None:
        return ok("git", "this package runs from no checkout: results carry its version only")
    return ok("git", f"results will carry commit {commit[:12]}{'-dirty' if commit.endswith('-dirty') else ''}")


def check_disk(experiment: Experiment, plan: Plan, site: Site) -> Finding:
    """Whether there is room for what the sweep will still write."""
    from eva_hpc.cluster.accounting import measured
    from eva_hpc.config.model_size import sizes_of

    root = Path(site.root).absolute()
    store = Store(root / "store")
    pending = pending_tasks(plan, Inventory(store).holds)
    sizes = sizes_of(recipe for _, recipe in experiment.points)
    need = disk_needed(plan, pending, site, sizes, measured(store, plan).written)
    free = shutil.disk_usage(root).free
    short = shortage(need, free)
    if short and need.lasting > free:
        return problem("disk", short, "the sweep cannot end well", "make room, or set another root")
    if short:
        do = "make room, or lower slurm.max_parallel: fewer trainings keep checkpoints at once"
        return warning("disk", short, "stages may fail for want of room", do)
    return ok("disk", f"{need}; {decimal(free)} free")


def check_hub_cache(experiment: Experiment, site: Site) -> Finding:
    """Whether what the sweep needs from the hub is in the cache here."""
    from eva_hpc.config.hub import missing, needs

    wanted, lacking = needs(experiment), missing(experiment)
    if not wanted:
        return ok("hub", "the sweep needs nothing from it")
    if not lacking:
        return ok("hub", f"all {len(wanted)} models and data sets are in the cache")
    do = "run eva-hpc prefetch FILE on this machine"
    found = "; ".join(lacking)
    if site.offline:
        return problem("hub", found, "jobs run offline and cannot fetch it", do)
    return warning("hub", found, "each is fetched by the first job that needs it, while its GPUs wait", do)


def check_machine(site: Site, packages: Sequence[str]) -> list[Finding]:
    """Whether this machine has cores, memory and packages for a site of the local executor."""
    cores = len(os.sched_getaffinity(0))
    threads = max(need.threads for need in (site.default, *site.stages.values()))
    asked = site.slots * threads
    found = f"{cores} cores, {site.slots} slots of up to {threads} threads"
    findings = [
        warning("cores", found, "processes share cores and are slower for it", f"set slots: {max(1, cores // threads)}")
        if asked > cores
        else ok("cores", found)
    ]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    found = f"{memory:.0f} GB for {site.slots} processes"
    few = memory < _GB_PER_PROCESS * site.slots
    findings.append(warning("memory", found, "processes may be killed", "lower slots") if few else ok("memory", found))
    there, lacking = [], []
    for name in packages:
        try:
            there.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            lacking.append(name)
    if lacking:
        do = "install them into the environment of this command"
        findings.append(problem("packages", f"not installed: {', '.join(lacking)}", "stages cannot run", do))
    else:
        findings.append(ok("packages", ", ".join(there)))
    return findings

"""What lies ahead of a sweep before anything starts: what is still to do, what it will cost, whether the disk has room."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from rich.filesize import decimal

from eva_hpc.benchmarks.official import needed
from eva_hpc.benchmarks.registry import unreadable
from eva_hpc.cluster.accounting import measured
from eva_hpc.config.benchmark import JudgedBenchmark, RewardBenchmark
from eva_hpc.config.errors import ConfigError
from eva_hpc.config.hub import missing
from eva_hpc.config.model_size import sizes_of
from eva_hpc.config.recipe import Recipe
from eva_hpc.config.reward import parts
from eva_hpc.config.server import Server
from eva_hpc.inference.server_environment import key_problem, network_problem
from eva_hpc.plan.cost import Estimate, estimate
from eva_hpc.plan.disk import Disk, disk_needed, shortage
from eva_hpc.plan.jobs import pending_tasks
from eva_hpc.plan.judge_calls import JudgeCalls, judge_calls
from eva_hpc.plan.plan import Task, alike
from eva_hpc.request import Opened
from eva_hpc.store.inventory import Inventory

NAMED = 8
"""So many runs that are alike are named."""


@dataclass(frozen=True)
class Outlook:
    """Tasks to do, their cost and bytes, and the bytes that are free.

    `missing` are models and data sets that are not in the local cache, looked for only where jobs have no network; `unready` is
    what else is lacking: official files of benchmarks, or the key of a server; `alike` tells of runs that are the same.
    """

    pending: list[Task]
    cost: Estimate
    disk: Disk
    free: int
    missing: list[str]
    calls: list[JudgeCalls]
    unready: list[str]
    alike: list[str]

    @property
    def warnings(self) -> list[str]:
        """What the user should know before starting."""
        short = shortage(self.disk, self.free)
        more = [f"and {len(self.alike) - NAMED} more"] if len(self.alike) > NAMED else []
        return [*([short] if short else []), *self.missing, *self.unready, *self.alike[:NAMED], *more]

    @property
    def lines(self) -> list[str]:
        """What the cost in hours does not tell: bytes to be written, and what judges will be asked."""
        return [self.disk_line, *map(str, self.calls)]

    @property
    def disk_line(self) -> str:
        """Bytes to be written and bytes free."""
        return f"disk: {self.disk}; {decimal(self.free)} free"

    def check(self) -> None:
        """Refuse what cannot end well.

        Raises:
            ConfigError: the disk has no room for the results, jobs without network lack something from the hub, or judged
                benchmarks lack something.
        """
        if self.disk.lasting > self.free:
            raise ConfigError(f"site.root: {shortage(self.disk, self.free)}")
        if self.unready:
            raise ConfigError(*self.unready)
        if self.missing:
            raise ConfigError(
                *self.missing, "the site is offline: run eva-hpc prefetch with the same words where there is network"
            )


def look_ahead(sweep: Opened, pending: list[Task] | None = None) -> Outlook:
    """Look at the store, the disk and the cache; writes nothing.

    Args:
        sweep: the sweep.
        pending: its tasks that are still to do, if that is known already.
    """
    plan, site, store = sweep.plan, sweep.site, sweep.store
    pending = pending_tasks(plan, Inventory(store).holds) if pending is None else pending
    sizes = sizes_of(recipe for _, recipe in sweep.experiment.points)
    known = measured(store, plan)
    disk = disk_needed(plan, pending, site, sizes, known.written)
    free = _free(sweep.root)
    lacking = missing(sweep.experiment) if site.offline and pending else []
    cost = estimate(plan, pending, site, sizes, known)
    calls = judge_calls(plan.tasks, pending)
    return Outlook(pending, cost, disk, free, lacking, calls, _unready(sweep) if pending else [], alike(plan))


def _unready(sweep: Opened) -> list[str]:
    """What the sweep lacks of official files, and to ask the servers it names."""
    site = sweep.site
    environment = {**os.environ, **site.environment}
    keys = []
    for server in [server for _, recipe in sweep.experiment.points for server in _servers(recipe)]:
        # What setup lines put into the environment of a job is not known here.
        missing_key = None if site.slurm.setup or site.software.setup else key_problem(server, environment)
        no_network = network_problem(server, environment) if site.offline else None
        keys += [problem for problem in (missing_key, no_network) if problem]
    files = needed.missing(sweep.experiment) or unreadable(recipe for _, recipe in sweep.experiment.points)
    return list(dict.fromkeys([*files, *keys]))


def _servers(recipe: Recipe) -> list[Server]:
    """Whatever a recipe asks by HTTP: judges, scorers, evolver, rewriter."""
    benchmarks = recipe.benchmarks.values()
    judges = [benchmark.judge or recipe.judge for benchmark in benchmarks if isinstance(benchmark, JudgedBenchmark)]
    rewards = [
        recipe.reward,
        *(one.reward for one in benchmarks if isinstance(one, RewardBenchmark) and one.reward is not None),
    ]
    asked = [
        *judges,
        *(part for reward in rewards for _, part in parts(reward)),
        recipe.creator.evolver if recipe.rounds and recipe.rounds_on == "evolved" and recipe.evolved_ratio else None,
        recipe.rewriter and recipe.rewriter.by,
    ]
    return [one for one in asked if isinstance(one, Server)]


def _free(folder: Path) -> int:
    """Bytes free where a folder is or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free

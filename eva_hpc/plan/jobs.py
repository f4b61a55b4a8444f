"""Pending tasks become Slurm jobs: shared stages in jobs of their own ahead of the runs, the rest of a run in one job.

Tasks that the same set of runs needs make one job: they form a chain anyway. It is cut into a chain of jobs where stages ask
Slurm for different places (partition, account, …), and before judging that needs no GPU, so that none idles meanwhile. A job
waits for the jobs it reads from. Shared jobs of the same depth and shape are submitted as one array, and so are all runs of the
same shape.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from pydantic import BaseModel, ConfigDict

from eva_hpc.config.site import Resources, Site
from eva_hpc.config.sweep import Value
from eva_hpc.plan.plan import Plan, Task
from eva_hpc.store.keys import Identity

JUDGING = ("judge", "ask_judge")
"""The stages that may wait for a server for hours: where one needs no GPU, it and what follows get a job without any."""


@dataclass(frozen=True)
class Placement:
    """Where Slurm is to run a job: stages that differ in this cannot share one. Fields as in a site's `slurm:` section."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    reservation: str | None = None
    exclude: str | None = None
    gpu_type: str | None = None
    additional: tuple[tuple[str, Value], ...] = ()


@dataclass(frozen=True)
class Shape:
    """What a job allocates: nodes, and per node CPUs, GPUs and memory; its time limit. Each the most that any task needs."""

    nodes: int
    cpus_per_node: int
    gpus_per_node: int
    mem_gb: float | None = None
    time_minutes: int = 60
    placement: Placement = Placement()

    @property
    def gpus(self) -> int:
        """GPUs on all nodes."""
        return self.nodes * self.gpus_per_node


class Job(BaseModel):
    """One Slurm job: tasks done one after the other in one allocation.

    `run` is the run whose tasks they are, None if several runs share them; `link` counts the jobs of a chain from 0.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    run: str | None
    tasks: tuple[str, ...]
    after: tuple[str, ...]
    link: int = 0


class Array(BaseModel):
    """Jobs of one shape and depth, submitted together.

    `after` are the arrays that must have ended; of the array `along`, which has the same runs in the same order, each job waits
    only for its own. If the one job of the array `canary` fails for a reason that would fail all, this array is held.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    shape: Shape
    jobs: tuple[Job, ...]
    after: tuple[str, ...]
    along: str | None = None
    canary: str | None = None


def pending_tasks(plan: Plan, done: Callable[[Identity], bool]) -> list[Task]:
    """Tasks still to be executed: those not done that an unfinished evaluation needs, in order."""
    needed: dict[str, Task] = {}
    queue = [plan.provider(identity) for run in plan.runs for identity in run.evaluations.values()]
    seen: set[str] = set()
    while queue:
        task = queue.pop()
        if task.id in seen:
            continue
        seen.add(task.id)
        if not done(task.identity):
            needed[task.id] = task
            queue += plan.parents(task)
    return [task for task in plan.tasks if task.id in needed]


def make_jobs(plan: Plan, tasks: Iterable[Task], site: Site) -> list[Job]:
    """Group pending tasks into jobs; each comes after those it waits for."""
    groups: dict[tuple[str, ...], list[Task]] = defaultdict(list)
    for task in tasks:
        groups[task.runs].append(task)
    shared = [runs for runs in groups if len(runs) > 1]
    names = {runs: f"shared-{number}" for number, runs in enumerate(shared, start=1)}
    names |= {runs: runs[0] for runs in groups if len(runs) == 1}
    chains = {
        runs: [_engines_together(plan, link, site) for link in _chain(plan, members, site)] for runs, members in groups.items()
    }
    job_of = {
        task.id: _link_name(names[runs], link)
        for runs, links in chains.items()
        for link, some in enumerate(links)
        for task in some
    }
    jobs = []
    for runs, links in chains.items():
        for link, members in enumerate(links):
            name = _link_name(names[runs], link)
            others = (job_of.get(parent.id, name) for task in members for parent in plan.parents(task))
            jobs.append(
                Job(
                    name=name,
                    run=runs[0] if len(runs) == 1 else None,
                    tasks=tuple(task.id for task in members),
                    after=tuple(dict.fromkeys(other for other in others if other != name)),
                    link=link,
                )
            )
    return jobs


def make_arrays(
    plan: Plan,
    jobs: Iterable[Job],
    site: Site,
    largest: int = 1001,
    proven: Collection[str] | None = None,
    memory_gb: Mapping[str, float] = {},
) -> list[Array]:
    """Group jobs into arrays of at most `largest` (Slurm's MaxArraySize); each comes after those it waits for.

    Pieces of what would have been one larger array wait for each other: the limit on parallel tasks holds for each array alone.

    Args:
        plan: whose tasks the jobs do.
        jobs: in any order.
        site: decides shapes.
        largest: jobs per array.
        proven: stages that have worked in this sweep; an array with others sends its first job ahead, as a canary. None: no
            canaries.
        memory_gb: memory per node of tasks, by id, that have shown to need more than the site's.
    """
    by_name = {job.name: job for job in jobs}
    depth: dict[str, int] = {}

    def depth_of(job: Job) -> int:
        if job.name not in depth:
            depth[job.name] = 1 + max((depth_of(by_name[name]) for name in job.after if name in by_name), default=-1)
        return depth[job.name]

    # Runs wait for all shared jobs of the array together: one array is worth more than an early start of some of them.
    last = len(by_name)
    groups: dict[tuple[int, Shape], list[Job]] = defaultdict(list)
    for job in by_name.values():
        groups[depth_of(job) if job.run is None else last + job.link, job_shape(plan, job, site, memory_gb)].append(job)

    # name, shape, jobs, the array it is a piece of after the one named, its canary
    pieces: list[tuple[str, Shape, list[Job], str | None, str | None]] = []
    trusted = set(proven or ())
    for (rank, shape), members in sorted(groups.items(), key=lambda group: group[0][0]):
        kind = "shared" if rank < last else "runs"
        stages = {plan.by_id[task].stage for job in members for task in job.tasks}
        canary = None
        if proven is not None and len(members) > 1 and not stages <= trusted:
            canary = f"{kind}-{len(pieces) + 1}"
            pieces.append((canary, shape, members[:1], None, None))
            members = members[1:]
            trusted |= stages
        before = None
        for start in range(0, len(members), largest):
            name = f"{kind}-{len(pieces) + 1}"
            pieces.append((name, shape, members[start : start + largest], before, canary))
            before = name
    array_of = {job.name: name for name, _, members, _, _ in pieces for job in members}
    runs_of = {name: [job.run for job in members] for name, _, members, _, _ in pieces}
    arrays = []
    for name, shape, members, before, canary in pieces:
        waits = [array_of[other] for job in members for other in job.after if other in array_of]
        parents = dict.fromkeys([*([before] if before else []), *([canary] if canary else []), *waits])
        along = next((one for one in parents if members[0].link and runs_of[one] == runs_of[name]), None)
        after = tuple(one for one in parents if one not in (name, along))
        arrays.append(Array(name=name, shape=shape, jobs=tuple(members), after=after, along=along, canary=canary))
    return arrays


def job_shape(plan: Plan, job: Job, site: Site, memory_gb: Mapping[str, float] = {}) -> Shape:
    """The allocation of a job; `memory_gb` as in :func:`make_arrays`."""
    stages = [plan.by_id[name] for name in job.tasks]
    needs = [task_resources(task, site) for task in stages]
    options = [site.job_options(task.stage) for task in stages]
    return Shape(
        nodes=max(need.nodes for need in needs),
        cpus_per_node=max(
            *(need.ranks_per_node * need.threads for need in needs), *(option.cpus_per_node or 0 for option in options)
        ),
        gpus_per_node=max(need.ranks_per_node * need.gpus_per_rank for need in needs),
        mem_gb=max(
            (
                *(option.mem_gb for option in options if option.mem_gb),
                *(memory_gb[task.id] for task in stages if task.id in memory_gb),
            ),
            default=None,
        ),
        time_minutes=max(option.time_minutes or site.slurm.time_minutes for option in options),
        placement=_placement(stages[0].stage, site),
    )


def task_resources(task: Task, site: Site) -> Resources:
    """What a task gets at a site: one process without a GPU unless it runs in shards or ranks."""
    resources = site.resources(task.stage)
    if task.parallel != "one":
        return resources
    return resources.model_copy(update={"nodes": 1, "ranks_per_node": 1, "gpus_per_rank": 0})


def _chain(plan: Plan, tasks: Sequence[Task], site: Site) -> list[list[Task]]:
    """Tasks of one job cut where the place changes, and before judging that needs no GPU."""
    later: set[str] = set()
    for task in tasks:
        follows = task.stage in JUDGING or any(parent.id in later for parent in plan.parents(task))
        if follows and not task_resources(task, site).gpus_per_rank:
            later.add(task.id)
    first = [task for task in tasks if task.id not in later]
    if not any(task_resources(task, site).gpus_per_rank for task in first):
        first, later = list(tasks), set()
    links: list[list[Task]] = []
    for part in (first, [task for task in tasks if task.id in later]):
        before: Placement | None = None
        for task in part:
            place = _placement(task.stage, site)
            if place != before:
                links.append([])
            links[-1].append(task)
            before = place
    return links


def engine_of(task: Task, site: Site) -> tuple[object, ...] | None:
    """What a task needs to have loaded, and where: tasks of which it is equal can share one start. None: no policy."""
    if task.policy_engine is None:
        return None
    return task.policy_engine, task.inputs["policy"], task_resources(task, site), site.software_of(task.stage)


def engines_found_open(tasks: Iterable[Task], site: Site) -> set[str]:
    """Those tasks of a job, in its order, that need no start of an engine: the one before them left theirs open."""
    found: set[str] = set()
    current: tuple[object, ...] | None = None
    for task in (task for task in tasks if task.parallel != "one"):
        engine = engine_of(task, site)
        if engine is not None and engine == current:
            found.add(task.id)
        current = engine
    return found


def _engines_together(plan: Plan, tasks: Sequence[Task], site: Site) -> list[Task]:
    """The tasks of a job in another order, in which those of one engine follow each other as far as their inputs allow."""
    engines = [engine_of(task, site) for task in tasks]
    if all(engine is None or engines.count(engine) == 1 for engine in engines):
        return list(tasks)
    left = dict(zip((task.id for task in tasks), zip(tasks, engines, strict=True), strict=True))
    ordered: list[Task] = []
    current: tuple[object, ...] | None = None
    while left:
        ready = [one for one in left.values() if not any(parent.id in left for parent in plan.parents(one[0]))]
        same = (one for one in ready if one[1] is not None and one[1] == current)
        light = (one for one in ready if one[0].parallel == "one" and one[0].stage not in JUDGING)
        task, engine = next(chain(same, light, ready))
        ordered.append(left.pop(task.id)[0])
        current = current if task.parallel == "one" else engine
    return ordered


def _placement(stage: str, site: Site) -> Placement:
    options = site.job_options(stage)
    plain = {name: getattr(options, name) for name in Placement.__dataclass_fields__ if name != "additional"}
    return Placement(**plain, additional=tuple(sorted(options.additional.items())))


def _link_name(name: str, link: int) -> str:
    return f"{name}/{link + 1}" if link else name

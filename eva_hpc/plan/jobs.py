"""Pending tasks become Slurm jobs: shared stages in jobs of their own ahead of the runs, the rest of a run in one job.

Tasks that the same set of runs needs make one shared job: they form a chain anyway. A job waits for the jobs it reads from.
Shared jobs of the same depth and shape are submitted as one array, and so are all runs of the same shape.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from eva_hpc.config.site import Resources, Site
from eva_hpc.plan.plan import Plan, Task
from eva_hpc.store.keys import Identity


@dataclass(frozen=True)
class Shape:
    """What a job allocates: nodes, and per node CPUs and GPUs. The largest that any of its tasks needs."""

    nodes: int
    cpus_per_node: int
    gpus_per_node: int


class Job(BaseModel):
    """One Slurm job: tasks done one after the other in one allocation."""

    model_config = ConfigDict(frozen=True)

    name: str
    run: str | None
    tasks: tuple[str, ...]
    after: tuple[str, ...]


class Array(BaseModel):
    """Jobs of one shape and depth, submitted together."""

    model_config = ConfigDict(frozen=True)

    name: str
    shape: Shape
    jobs: tuple[Job, ...]
    after: tuple[str, ...]


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


def make_jobs(plan: Plan, tasks: Iterable[Task]) -> list[Job]:
    """Group pending tasks into jobs; each comes after those it waits for."""
    groups: dict[tuple[str, ...], list[Task]] = defaultdict(list)
    for task in tasks:
        groups[task.runs].append(task)
    shared = [runs for runs in groups if len(runs) > 1]
    names = {runs: f"shared-{number}" for number, runs in enumerate(shared, start=1)}
    names |= {runs: runs[0] for runs in groups if len(runs) == 1}
    job_of = {task.id: names[runs] for runs, members in groups.items() for task in members}
    return [
        Job(
            name=names[runs],
            run=runs[0] if len(runs) == 1 else None,
            tasks=tuple(task.id for task in members),
            after=tuple(
                dict.fromkeys(
                    job_of[parent.id]
                    for task in members
                    for parent in plan.parents(task)
                    if parent.id in job_of and job_of[parent.id] != names[runs]
                )
            ),
        )
        for runs, members in groups.items()
    ]


def make_arrays(plan: Plan, jobs: Iterable[Job], site: Site, largest: int = 1001) -> list[Array]:
    """Group jobs into arrays of at most `largest` (Slurm's MaxArraySize); each comes after those it waits for."""
    by_name = {job.name: job for job in jobs}
    depth: dict[str, int] = {}

    def depth_of(job: Job) -> int:
        if job.name not in depth:
            depth[job.name] = 1 + max((depth_of(by_name[name]) for name in job.after), default=-1)
        return depth[job.name]

    # Runs wait for all shared jobs of the array together: one array is worth more than an early start of some of them.
    last = len(by_name)
    groups: dict[tuple[int, Shape], list[Job]] = defaultdict(list)
    for job in by_name.values():
        groups[depth_of(job) if job.run is None else last, job_shape(plan, job, site)].append(job)
    pieces = [
        (key, members[start : start + largest]) for key, members in groups.items() for start in range(0, len(members), largest)
    ]
    ordered = sorted(pieces, key=lambda piece: piece[0][0])
    names = {}
    for number, ((depth_or_last, _), members) in enumerate(ordered, start=1):
        for job in members:
            names[job.name] = f"{'runs' if depth_or_last == last else 'shared'}-{number}"
    return [
        Array(
            name=names[members[0].name],
            shape=shape,
            jobs=tuple(members),
            after=tuple(dict.fromkeys(names[name] for job in members for name in job.after)),
        )
        for (_, shape), members in ordered
    ]


def job_shape(plan: Plan, job: Job, site: Site) -> Shape:
    """The allocation of a job."""
    needs = [task_resources(plan.by_id[name], site) for name in job.tasks]
    return Shape(
        nodes=max(need.nodes for need in needs),
        cpus_per_node=max(need.ranks_per_node * need.threads for need in needs),
        gpus_per_node=max(need.ranks_per_node * need.gpus_per_rank for need in needs),
    )


def task_resources(task: Task, site: Site) -> Resources:
    """What a task gets at a site: one process without a GPU unless it runs in shards or ranks."""
    resources = site.resources(task.stage)
    return resources if task.parallel != "one" else Resources(threads=resources.threads)

"""The kinds of jobs that a site gets: of a sweep, those its plan makes; without one, those the site file describes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from eva_hpc.config.site import Site
from eva_hpc.plan.jobs import Array, Job, Placement, Shape, job_shape, make_arrays, make_jobs
from eva_hpc.plan.plan import Plan, Task
from eva_hpc.stages.registry import STAGES
from eva_hpc.store.keys import Identity


@dataclass(frozen=True)
class Kind:
    """Jobs of one shape. `jobs` is how many of them the sweep has, None without a sweep; `array` the largest array of them."""

    stages: tuple[str, ...]
    array: Array
    jobs: int | None

    @property
    def shape(self) -> Shape:
        """What each allocates."""
        return self.array.shape

    @property
    def title(self) -> str:
        """A name for the report."""
        shown = ", ".join(self.stages[:3]) + (", …" if len(self.stages) > 3 else "")
        return f"jobs of {shown}"

    @property
    def size(self) -> str:
        """The shape in words."""
        shape = self.shape
        parts = [f"{shape.nodes} node{'s' if shape.nodes > 1 else ''} with {shape.cpus_per_node} CPUs"]
        if shape.gpus_per_node:
            kind = f" {shape.placement.gpu_type}" if shape.placement.gpu_type else ""
            parts.append(f"{shape.gpus_per_node}{kind} GPUs")
        if shape.mem_gb:
            parts.append(f"{shape.mem_gb:g} GB")
        return ", ".join(parts) + f", {shape.time_minutes} min"


def kinds_of_plan(plan: Plan, site: Site, largest: int) -> list[Kind]:
    """One for each shape of the sweep's jobs, done or not; `largest` is Slurm's MaxArraySize."""
    by_shape: dict[Shape, list[Array]] = defaultdict(list)
    for array in make_arrays(plan, make_jobs(plan, plan.tasks, site), site, largest):
        by_shape[array.shape].append(array)
    kinds = []
    for arrays in by_shape.values():
        ids = (task for array in arrays for job in array.jobs for task in job.tasks)
        stages = tuple(dict.fromkeys(plan.by_id[name].stage for name in ids))
        jobs = sum(len(array.jobs) for array in arrays)
        kinds.append(Kind(stages, max(arrays, key=lambda array: len(array.jobs)), jobs))
    return kinds


def kinds_of_site(site: Site) -> list[Kind]:
    """One for each place that stages ask for, with the largest shape of its stages."""
    tasks = {stage: _pretended(stage) for stage in STAGES}
    plan = Plan(name="doctor", runs=(), tasks=tuple(tasks.values()), separate_stages=0)
    by_place: dict[Placement, list[str]] = defaultdict(list)
    for stage in STAGES:
        by_place[job_shape(plan, _job(plan, [tasks[stage]]), site).placement].append(stage)
    kinds = []
    for stages in by_place.values():
        job = _job(plan, [tasks[stage] for stage in stages])
        # What the site file lists by name says more than the small stages that run as one process.
        named = tuple(stage for stage in stages if stage in site.stages) or tuple(stages)
        kinds.append(Kind(named, Array(name="doctor", shape=job_shape(plan, job, site), jobs=(job,), after=()), None))
    return kinds


def _pretended(stage: str) -> Task:
    return Task(identity=Identity(stage, "doctor"), spec={}, part="", parallel="shards", inputs={}, runs=())


def _job(plan: Plan, tasks: Sequence[Task]) -> Job:
    return Job(name="doctor", run=None, tasks=tuple(task.id for task in tasks), after=())

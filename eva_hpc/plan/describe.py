"""A plan in words: what a dry run prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tabulate import tabulate

from eva_hpc.config.site import Site
from eva_hpc.plan.jobs import job_shape, make_arrays, make_jobs, task_resources
from eva_hpc.plan.plan import Plan, Task


def describe(plan: Plan, pending: Sequence[Task], site: Site) -> str:
    """Runs, stages with and without sharing, what is done, and what each stage and job gets."""
    names = {task.id for task in pending}
    separate: Counter[tuple[str, str]] = Counter()
    for run in plan.runs:
        for task in plan.tasks_of(run.name):
            separate[task.part, task.stage] += 1
    rows = []
    for part, stage in sorted(separate, key=lambda key: key[0] == "evaluation"):
        tasks = [task for task in plan.tasks if (task.part, task.stage) == (part, stage)]
        need = task_resources(tasks[0], site)
        rows.append(
            [
                part,
                stage,
                separate[part, stage],
                len(tasks),
                sum(task.id in names for task in tasks),
                f"{need.nodes} x {need.ranks_per_node}",
                need.nodes * need.ranks_per_node * need.gpus_per_rank,
                _nested(tasks),
            ]
        )
    lines = [
        f"{plan.name} at site {site.name}: {len(plan.runs)} runs",
        "",
        tabulate(rows, ["part", "stage", "needed", "after sharing", "to do", "nodes x ranks", "GPUs", "nested in"]),
        "",
        f"{plan.separate_stages} stages in all, {len(plan.tasks)} after sharing, {len(plan.tasks) - len(pending)} done or not "
        f"needed any more, {len(pending)} to do",
    ]
    if site.executor == "local":
        return "\n".join([*lines, f"on this machine, at most {site.slots} processes at once"])
    jobs = []
    for array in make_arrays(plan, make_jobs(plan, pending), site):
        for job in array.jobs:
            shape = job_shape(plan, job, site)
            jobs.append([array.name, job.name, len(job.tasks), shape.nodes, shape.cpus_per_node, shape.gpus_per_node])
            jobs[-1].append(", ".join(array.after))
    return "\n".join(
        [*lines, "", tabulate(jobs, ["array", "job", "stages", "nodes", "CPUs per node", "GPUs per node", "waits for"])]
    )


def _nested(tasks: Sequence[Task]) -> str:
    """The nested values that are computed, smallest to largest; smaller ones are slices of these."""
    values: dict[str, set[float]] = {}
    for task in tasks:
        for field, value in task.identity.nested:
            values.setdefault(field, set()).add(value)
    return ", ".join(
        f"{field} {min(found):g}" + (f" to {max(found):g}" if len(found) > 1 else "") for field, found in values.items()
    )

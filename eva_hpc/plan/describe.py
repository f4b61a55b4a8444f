"""A plan in words: what ``eva-hpc plan`` and a dry run print."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tabulate import tabulate

from eva_hpc.config.site import Site
from eva_hpc.plan.cost import Estimate, hours
from eva_hpc.plan.jobs import Array, Shape, make_arrays, make_jobs, task_resources
from eva_hpc.plan.plan import Plan, Task
from eva_hpc.stages.registry import STAGES


def describe(
    plan: Plan,
    pending: Sequence[Task],
    site: Site,
    *,
    cost: Estimate | None = None,
    lines: Sequence[str] = (),
    canary: bool = False,
) -> str:
    """Runs, stages with and without sharing, what is done, what each stage and array of jobs gets, and the cost.

    Args:
        plan: the plan.
        pending: its tasks that are still to do, in order.
        site: where.
        cost: what it will cost, if that is to be shown.
        lines: what else there is to say, at the end.
        canary: arrays send one job ahead.
    """
    parts = [
        f"{plan.name} at site {site.name}: {len(plan.runs)} runs",
        _stages(plan, pending, site),
        f"{plan.separate_stages} stages in all, {len(plan.tasks)} after sharing, {len(plan.tasks) - len(pending)} done or not "
        f"needed any more, {len(pending)} to do",
    ]
    if site.executor == "local":
        parts.append(f"on this machine, at most {site.slots} processes at once")
    elif pending:
        parts.append(_arrays(make_arrays(plan, make_jobs(plan, pending, site), site, proven=set() if canary else None)))
    if cost is not None:
        parts.append(_cost(cost))
    return "\n\n".join([*parts, *(["\n".join(lines)] if lines else [])])


def _stages(plan: Plan, pending: Sequence[Task], site: Site) -> str:
    to_do = {task.id for task in pending}
    separate: Counter[tuple[str, str]] = Counter()
    tasks_of: dict[tuple[str, str], list[Task]] = {}
    for run in plan.runs:
        for task in plan.tasks_of(run.name):
            separate[task.part, task.stage] += 1
    for task in plan.tasks:
        tasks_of.setdefault((task.part, task.stage), []).append(task)
    rows = []
    for part, stage in sorted(separate, key=_in_order):
        tasks = tasks_of[part, stage]
        need = task_resources(tasks[0], site)
        rows.append(
            [
                part,
                stage,
                separate[part, stage],
                len(tasks),
                sum(task.id in to_do for task in tasks),
                f"{need.nodes} x {need.ranks_per_node}",
                need.world_size * need.gpus_per_rank,
                _nested(tasks),
            ]
        )
    headings = ["part", "stage", "needed", "after sharing", "to do", "nodes x ranks", "GPUs", "nested in"]
    text: str = tabulate(rows, headings)
    return text


def _in_order(key: tuple[str, str]) -> tuple[int, int, int]:
    """Parts as a run goes through them, and in each the stages as the registry lists them."""
    part, stage = key
    number = int(part.removeprefix("round ")) if part.startswith("round ") else 0
    return ["start", "warm-up", "round", "evaluation"].index(part.split()[0]), number, list(STAGES).index(stage)


def _arrays(arrays: Sequence[Array]) -> str:
    """One row for each array, with what each of its jobs asks of Slurm."""
    rows = []
    for array in arrays:
        shape = array.shape
        waits = [*array.after, *([f"its own in {array.along}"] if array.along else [])]
        rows.append(
            [
                array.name,
                len(array.jobs),
                sum(len(job.tasks) for job in array.jobs),
                shape.nodes,
                shape.cpus_per_node,
                shape.gpus_per_node,
                f"{shape.mem_gb:g} GB" if shape.mem_gb else "",
                f"{shape.time_minutes} min",
                _place(shape),
                ", ".join(waits),
            ]
        )
    each = ["nodes", "CPUs per node", "GPUs per node", "memory", "time limit", "where"]
    text: str = tabulate(rows, ["array", "jobs", "stages", *each, "waits for"])
    return text


def _place(shape: Shape) -> str:
    place = shape.placement
    named = {"": place.partition, "account ": place.account, "qos ": place.qos, "reservation ": place.reservation}
    return ", ".join(f"{word}{value}" for word, value in named.items() if value)


def _cost(cost: Estimate) -> str:
    if all(one.planned is None for one in cost.stages if one.to_do) and cost.unknown:
        return f"{cost.unit}: not known, because no such stage has run here before"
    rows = [
        [one.stage, one.separate, one.shared, one.to_do, hours(one.naive), hours(one.done), hours(one.planned), one.basis]
        for one in cost.stages
    ]
    rows.append(["all", "", "", "", hours(cost.naive), hours(cost.done), hours(cost.planned), ""])
    headings = ["stage", "needed", "after sharing", "to do", "naive", "done", "planned", "basis"]
    table = tabulate(rows, headings, disable_numparse=True, colalign=["left", *["right"] * 6, "left"])
    said = (
        f"{cost.unit}: {hours(cost.planned)} planned for what is to do; {hours(cost.naive)} naive, if every run did everything "
        f"for itself; {hours(cost.done)} for what is done or not needed any more"
    )
    if cost.unknown:
        said += f"; all without {', '.join(cost.unknown)}"
    return "\n".join([table, "", said, *cost.notes])


def _nested(tasks: Sequence[Task]) -> str:
    """The nested values that are computed, smallest to largest; smaller ones are slices of these."""
    values: dict[str, set[float]] = {}
    for task in tasks:
        for field, value in task.identity.nested:
            values.setdefault(field, set()).add(value)
    return ", ".join(
        f"{field} {min(found):g}" + (f" to {max(found):g}" if len(found) > 1 else "") for field, found in values.items()
    )

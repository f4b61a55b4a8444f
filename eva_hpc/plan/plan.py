"""The plan: every stage of every run once, nested work merged, and who needs what."""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict

from eva_hpc.config.sweep import Experiment, Value
from eva_hpc.plan.eva import evaluations
from eva_hpc.plan.graph import Node, in_order
from eva_hpc.plan.grid import runs
from eva_hpc.stages.contract import Parallel
from eva_hpc.store.keys import Identity


class Task(BaseModel):
    """One stage to be executed: its identity, spec, inputs and the runs that need it."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    identity: Identity
    spec: dict[str, Any]
    part: str
    parallel: Parallel
    inputs: dict[str, Identity]
    runs: tuple[str, ...]
    policy_engine: str | None = None
    ahead_of: str | None = None

    @cached_property
    def id(self) -> str:
        """The folder of its artifact below the store, which names it uniquely."""
        return f"{self.identity.stage}/{self.identity.name}"

    @property
    def stage(self) -> str:
        """Its stage."""
        return self.identity.stage


class PlannedRun(BaseModel):
    """A run and the evaluations it ends in, by benchmark."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    name: str
    point: dict[str, Value]
    seed: int
    evaluations: dict[str, Identity]
    judges: dict[str, str]


class Plan(BaseModel):
    """All work of an experiment. Tasks come after the tasks they read from."""

    model_config = ConfigDict(frozen=True)

    name: str
    runs: tuple[PlannedRun, ...]
    tasks: tuple[Task, ...]
    separate_stages: int

    @cached_property
    def by_id(self) -> dict[str, Task]:
        """Tasks by id."""
        return {task.id: task for task in self.tasks}

    @cached_property
    def _by_identity(self) -> dict[Identity, Task]:
        return {task.identity: task for task in self.tasks}

    @cached_property
    def _by_family(self) -> dict[tuple[str, str], list[Task]]:
        families: dict[tuple[str, str], list[Task]] = defaultdict(list)
        for task in self.tasks:
            families[task.identity.stage, task.identity.family].append(task)
        return families

    def provider(self, identity: Identity) -> Task:
        """The task whose artifact is or contains the one asked for."""
        if identity in self._by_identity:
            return self._by_identity[identity]
        return next(task for task in self._by_family[identity.stage, identity.family] if task.identity.contains(identity))

    def parents(self, task: Task) -> list[Task]:
        """The tasks it reads from."""
        return [self.provider(identity) for identity in task.inputs.values()]

    @cached_property
    def _children(self) -> dict[str, list[Task]]:
        children: dict[str, list[Task]] = defaultdict(list)
        for task in self.tasks:
            for parent in {parent.id for parent in self.parents(task)}:
                children[parent].append(task)
        return children

    def children(self, task: Task) -> Sequence[Task]:
        """The tasks that read from it, in order."""
        return self._children.get(task.id, ())

    @cached_property
    def _by_run(self) -> dict[str, list[Task]]:
        of_run: dict[str, list[Task]] = defaultdict(list)
        for task in self.tasks:
            for run in task.runs:
                of_run[run].append(task)
        return of_run

    def tasks_of(self, run: str) -> Sequence[Task]:
        """The tasks a run needs, in order."""
        return self._by_run.get(run, ())


def alike(plan: Plan) -> list[str]:
    """One line for each run that is the same as another one of its seed: the axes between them change nothing."""
    first: dict[tuple[Any, ...], PlannedRun] = {}
    lines = []
    for run in plan.runs:
        same = first.setdefault((run.seed, *sorted(run.evaluations.items())), run)
        if same is not run:
            axes = [axis for axis in run.point if run.point[axis] != same.point[axis]]
            lines.append(f"{run.name} is the same as {same.name}: {', '.join(axes)} changes nothing there")
    return lines


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """For making millions of objects that stay: looking for garbage among them takes longer than all else."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@without_garbage_collection()
def make_plan(experiment: Experiment) -> Plan:
    """Plan an experiment.

    Nested requests of one family (k = 2, 4, 6 of the same prompts and policy) become one task for the largest. Without
    sharing the keys of a run are its own: nothing is nested and nothing is shared, and the numbers are the same.
    """
    planned: list[PlannedRun] = []
    nodes: dict[Identity, Node] = {}
    needed_by: dict[Identity, list[int]] = defaultdict(list)
    separate = 0
    for number, run in enumerate(runs(experiment)):
        salt = "" if experiment.sharing else f"{experiment.name}/{run.name}"
        ends = evaluations(run.recipe, run.seed, experiment.fingerprints, salt)
        for node in in_order(judging.node for judging in ends.values()):
            separate += 1
            nodes.setdefault(node.identity, node)
            needed_by[node.identity].append(number)
        planned.append(
            PlannedRun(
                name=run.name,
                point=run.point,
                seed=run.seed,
                evaluations={name: judging.node.identity for name, judging in ends.items()},
                judges={name: judging.judge for name, judging in ends.items()},
            )
        )
    provider = _maximal(nodes)
    users: dict[Identity, set[int]] = defaultdict(set)
    for identity in nodes:
        users[provider[identity]].update(needed_by[identity])
    tasks = [
        Task(
            identity=identity,
            spec=node.spec.model_dump(mode="json"),
            part=node.part,
            parallel=node.spec.parallel,
            policy_engine=node.spec.policy_engine,
            ahead_of=node.spec.ahead_of,
            inputs={role: provider[source.identity] for role, source in node.inputs.items()},
            runs=tuple(planned[number].name for number in sorted(users[identity])),
        )
        for identity, node in nodes.items()
        if provider[identity] == identity
    ]
    return Plan(
        name=experiment.name,
        runs=tuple(planned),
        tasks=tuple(_after_inputs(tasks)),
        separate_stages=separate,
    )


def _maximal(identities: Iterable[Identity]) -> Mapping[Identity, Identity]:
    """For each identity the largest of its family that contains it: itself unless it is nested."""
    families: dict[tuple[str, str], list[Identity]] = defaultdict(list)
    for identity in identities:
        families[identity.stage, identity.family].append(identity)
    provider = {}
    for family in families.values():
        largest: list[Identity] = []
        # What contains another has no smaller value, so it comes first; in a grid the first one contains them all.
        for identity in sorted(family, key=lambda one: one.values, reverse=True):
            provider[identity] = next((one for one in largest if one.contains(identity)), identity)
            if provider[identity] == identity:
                largest.append(identity)
    return provider


def _after_inputs(tasks: list[Task]) -> list[Task]:
    """Tasks in an order in which each comes after those it reads from; otherwise the order given."""
    by_identity = {task.identity: task for task in tasks}
    ordered: dict[Identity, Task] = {}

    def visit(task: Task) -> None:
        if task.identity not in ordered:
            for identity in task.inputs.values():
                visit(by_identity[identity])
            ordered[task.identity] = task

    for task in tasks:
        visit(task)
    return list(ordered.values())

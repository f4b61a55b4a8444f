"""The index of a plan: names, and which run needs which task; small, so that thousands of runs can be looked at in no time.

RESULTS/index.json, written next to the plan::

    {"name": "responses_per_prompt-lab",
     "runs": [["responses_per_prompt=2,seed=1", {"responses_per_prompt": 2}, 1, [149], [0, 1, 2, …, 149]], …],
     "tasks": ["start_policy/5f0c…", …, "evaluate/77aa…"], "parts": ["start", …, "evaluation"], "inputs": [[], …, [2, 148]]}

A run has its name, point, seed, the numbers of the tasks it ends in and of all it needs; a task has its id, its part of the run
and the numbers of the tasks it reads from. Numbers count the tasks from 0, in the order of the plan.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import orjson

from eva_hpc.config.sweep import Value
from eva_hpc.plan.plan import Plan
from eva_hpc.store.artifacts import write_atomically
from eva_hpc.store.keys import Identity

INDEX = "index.json"


class IndexedRun(NamedTuple):
    """A run: `ends` are its evaluations, `tasks` all that it needs, both as numbers of tasks, in order."""

    name: str
    point: dict[str, Value]
    seed: int
    ends: list[int]
    tasks: list[int]


@dataclass(frozen=True)
class Index:
    """The runs and, column by column, the tasks of a plan."""

    name: str
    runs: list[IndexedRun]
    tasks: list[str]
    parts: list[str]
    inputs: list[list[int]]

    def stage(self, number: int) -> str:
        """The stage of a task."""
        return self.tasks[number].partition("/")[0]

    def identity(self, number: int) -> Identity:
        """The identity of a task's artifact."""
        stage, _, name = self.tasks[number].partition("/")
        return Identity.from_name(stage, name)

    @cached_property
    def users(self) -> Mapping[int, list[IndexedRun]]:
        """The runs that need a task."""
        users: dict[int, list[IndexedRun]] = defaultdict(list)
        for run in self.runs:
            for number in run.tasks:
                users[number].append(run)
        return users


def index_of(plan: Plan) -> Index:
    """The index of a plan."""
    numbers = {task.id: number for number, task in enumerate(plan.tasks)}
    runs = [
        IndexedRun(
            run.name,
            run.point,
            run.seed,
            [numbers[plan.provider(identity).id] for identity in run.evaluations.values()],
            [numbers[task.id] for task in plan.tasks_of(run.name)],
        )
        for run in plan.runs
    ]
    inputs = [[numbers[parent.id] for parent in plan.parents(task)] for task in plan.tasks]
    return Index(plan.name, runs, list(numbers), [task.part for task in plan.tasks], inputs)


def write_index(plan: Plan, results: Path) -> None:
    """Write the index of a plan into a sweep's results."""
    index = index_of(plan)
    content = {name: getattr(index, name) for name in Index.__dataclass_fields__}
    write_atomically(results / INDEX, orjson.dumps(content, default=list))


def read_index(results: Path) -> Index | None:
    """The index of the sweep that has its results there, of its latest plan; None if it was never launched."""
    try:
        content = orjson.loads((results / INDEX).read_bytes())
    except FileNotFoundError:
        return None
    return Index(**content | {"runs": [IndexedRun._make(run) for run in content["runs"]]})

"""Experiments and their plans, made without files."""

from __future__ import annotations

from itertools import product

import pytest

from eva_hpc.config.recipe import Recipe
from eva_hpc.config.site import Site
from eva_hpc.config.sweep import Experiment, Sweep
from eva_hpc.plan.plan import make_plan
from tests.recipes import LAB

FULL = {
    "name": "full",
    "policy": {"kind": "pretrained", "path": "/models/policy"},
    "prompts": {"kind": "file", "path": "/data/prompts.jsonl"},
    "reward": {"kind": "sequence_classification", "path": "/models/reward"},
    "creator": {"evolver": {"kind": "policy"}},
    "benchmarks": {"heldout": {"kind": "reward", "path": "/data/heldout.jsonl"}},
}
CONTENT = {"/models/policy": "p", "/data/prompts.jsonl": "d", "/models/reward": "r", "/data/heldout.jsonl": "h"}


def _changed(recipe, values):
    """A copy of a recipe with dotted keys set."""
    copy = {name: dict(value) if isinstance(value, dict) else value for name, value in recipe.items()}
    for dotted, value in values.items():
        *sections, field = dotted.split(".")
        section = copy
        for name in sections:
            section[name] = dict(section.get(name, {}))
            section = section[name]
        section[field] = value
    return copy


def _experiment(axes, seeds=(1, 2), recipe=LAB, fingerprints=None, **changes):
    """An experiment over the full grid of `axes`; `changes` are further dotted keys, with __ for the dots."""
    base = _changed(recipe, {name.replace("__", "."): value for name, value in changes.items()})
    points = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    return Experiment(
        sweep=Sweep(name="test", recipe="recipe.yaml", axes=axes, seeds=seeds),
        recipe=Recipe.model_validate(base),
        points=tuple((point, Recipe.model_validate(_changed(base, point))) for point in points),
        fingerprints=CONTENT if fingerprints is None else fingerprints,
    )


def _plan(*arguments, **changes):
    return make_plan(_experiment(*arguments, **changes))


def _tasks(plan, stage, part=None):
    """The tasks of a stage, of one part of the run or of all."""
    return [task for task in plan.tasks if task.stage == stage and part in (None, task.part)]


@pytest.fixture(scope="session")
def experiment_of():
    return _experiment


@pytest.fixture(scope="session")
def plan_of():
    return _plan


@pytest.fixture(scope="session")
def tasks_of():
    return _tasks


@pytest.fixture(scope="session")
def full():
    return FULL


@pytest.fixture(scope="session")
def slurm_site():
    return Site.model_validate(
        {
            "name": "cluster",
            "executor": "slurm",
            "scale": "lab",
            "default": {"threads": 2},
            "stages": {
                "start_policy": {"ranks_per_node": 2},
                "generate": {"nodes": 2, "ranks_per_node": 4, "gpus_per_rank": 1, "threads": 3},
                "train": {"nodes": 2, "ranks_per_node": 8, "gpus_per_rank": 1},
                "select": {"nodes": 2, "ranks_per_node": 4},
            },
        }
    )

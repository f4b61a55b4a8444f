"""Experiments and metric rows to build tables from."""

from __future__ import annotations

from itertools import product

import pytest

from eva_hpc.config.recipe import Recipe
from eva_hpc.config.sweep import Experiment, Sweep
from tests.recipes import LAB

FULL = {
    "name": "gemma",
    "policy": {"kind": "pretrained", "path": "gemma"},
    "prompts": {"kind": "file", "path": "prompts.jsonl"},
    "reward": {"kind": "sequence_classification", "path": "reward"},
    "creator": {"evolver": {"kind": "policy"}},
    "benchmarks": {"heldout": {"kind": "reward", "path": "heldout.jsonl"}},
}


def _experiment(axes, seeds=(1, 2), recipe=LAB, quick=False, **sweep):
    """An experiment over the full grid; the recipes of its points are all the same, which the report does not look at."""
    resolved = Recipe.model_validate(recipe)
    points = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    return Experiment(
        sweep=Sweep.model_validate({"name": "small", "recipe": "recipe.yaml", "axes": axes, "seeds": seeds, **sweep}),
        recipe=resolved,
        points=tuple((point, resolved) for point in points),
        quick=quick,
    )


def _row(point, seed, value, benchmark="lab", metric="win_rate", **other):
    """A metric row as a run writes it."""
    name = ",".join(f"{axis}={setting}" for axis, setting in {**point, "seed": seed}.items())
    row = {"run": name, "point": point, "seed": seed, "benchmark": benchmark, "metric": metric, "value": value, "n": 300}
    row |= {"coverage": 1.0, "judge": "lab checker", "key": "5f0c", "version": "0.1.0", "git_commit": "9e1b", "packages": {}}
    return row | other


@pytest.fixture
def full_recipe():
    return FULL


@pytest.fixture
def two_benchmarks():
    return LAB | {"benchmarks": {"a": {"kind": "lab"}, "b": {"kind": "lab"}}}


@pytest.fixture(scope="session")
def experiment_of():
    return _experiment


@pytest.fixture(scope="session")
def row():
    return _row

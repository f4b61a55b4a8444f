"""Grid points and seeds become runs: one run is one Slurm job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from eva_hpc.config.recipe import Recipe
from eva_hpc.config.sweep import Experiment, Value


@dataclass(frozen=True)
class Run:
    """One grid point and one seed."""

    name: str
    point: dict[str, Value]
    seed: int
    recipe: Recipe


def run_name(point: Mapping[str, Value], seed: int) -> str:
    """The name of a run, e.g. ``responses_per_prompt=6,seed=1``."""
    return ",".join(f"{name}={value}" for name, value in {**point, "seed": seed}.items())


def runs(experiment: Experiment) -> list[Run]:
    """All runs in grid order, seeds innermost."""
    return [
        Run(run_name(point, seed), point, seed, recipe)
        for point, recipe in experiment.points
        for seed in experiment.sweep.seeds
    ]

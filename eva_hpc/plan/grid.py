"""Grid points and seeds become runs: one run is one Slurm job."""

from __future__ import annotations

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


def runs(experiment: Experiment) -> list[Run]:
    """All runs in grid order, seeds innermost. Names read like ``responses_per_prompt=6,seed=1``."""
    return [
        Run(",".join([*(f"{axis}={value}" for axis, value in point.items()), f"seed={seed}"]), point, seed, recipe)
        for point, recipe in experiment.points
        for seed in experiment.sweep.seeds
    ]

"""The sweep file: a recipe, axes with values, seeds and the layout of the table."""

from __future__ import annotations

import hashlib
import math
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from eva_hpc.config.recipe import Recipe
from eva_hpc.config.section import Name, Section


def _scalar(value: Any) -> Any:
    if isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise PydanticCustomError("plain_value", "must be a finite number, text, true or false")


def _recipe_files(value: Any) -> Any:
    by_scale = isinstance(value, dict) and value and set(value) <= {"lab", "full"}
    if (isinstance(value, str) and value) or (by_scale and all(isinstance(file, str) and file for file in value.values())):
        return value
    raise PydanticCustomError("recipe_files", "must be a recipe file, or one for each scale: {lab: FILE, full: FILE}")


def _all_differ(values: tuple[Any, ...]) -> tuple[Any, ...]:
    twice = {str(value): None for index, value in enumerate(values) if value in values[:index]}
    if twice:
        raise PydanticCustomError(
            "repeated", "lists {values} more than once; every value must differ", {"values": ", ".join(twice)}
        )
    return values


Value = Annotated[bool | int | float | str, BeforeValidator(_scalar)]
AxisValues = Annotated[tuple[Value, ...], Field(strict=False, min_length=1), AfterValidator(_all_differ)]
Seeds = Annotated[
    tuple[Annotated[int, Field(ge=0, lt=2**63)], ...],
    Field(strict=False, min_length=1),
    AfterValidator(_all_differ),
]
RecipeFiles = Annotated[str | dict[str, str], BeforeValidator(_recipe_files)]


class Column(Section):
    """One column of the table: a metric of a benchmark under a heading."""

    benchmark: str
    metric: str
    heading: str
    group: str = Field(default="", description="heading above neighbouring columns of the same group")
    decimals: int = Field(default=1, ge=0, le=6)


class Table(Section):
    """What the table shows. Without columns it shows the default ones of the benchmarks."""

    caption: str = ""
    label: str = ""
    columns: tuple[Column, ...] = Field(default=(), strict=False)


class Sweep(Section):
    """A grid of recipes: every combination of the axes' values, times the seeds. Axis names are dotted keys of the recipe."""

    name: Name
    recipe: RecipeFiles = Field(description="a recipe file, or one for each scale: {lab: FILE, full: FILE}")
    axes: dict[str, AxisValues] = Field(min_length=1, description="values by dotted recipe key")
    seeds: Seeds
    quick_seeds: int = Field(default=1, ge=1, description="how many of the seeds --quick keeps")
    table: Table = Table()


class Experiment(Section):
    """A sweep with its recipe resolved and every grid point validated: what the planner reads.

    Paths in the points' recipes are absolute. `fingerprints` maps each external path or hub name (prompt files, models, data
    sets), written as in the points' recipes, to a hash of its content.
    """

    sweep: Sweep
    recipe: Recipe
    points: tuple[Annotated[tuple[dict[str, Value], Recipe], Field(strict=False)], ...] = Field(
        strict=False, description="axis values and the recipe they give, in grid order"
    )
    fingerprints: dict[str, str] = Field(default_factory=dict)
    quick: bool = False
    sharing: bool = Field(default=True, description="false: every run computes everything for itself")
    settings: tuple[str, ...] = Field(
        default=(), strict=False, description="what the command line set of the sweep and the recipe: KEY=VALUE"
    )

    @property
    def name(self) -> str:
        """The folder name of this experiment's results: with settings on the command line, another one for each set of them."""
        parts = [self.sweep.name, self.recipe.name]
        if self.quick:
            parts.append("quick")
        if self.settings:
            parts.append(hashlib.sha256("\n".join(sorted(self.settings)).encode()).hexdigest()[:6])
        if not self.sharing:
            parts.append("unshared")
        return "-".join(parts)

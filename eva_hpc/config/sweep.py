"""The sweep file: a recipe, axes with values, seeds and the layout of the table."""

from __future__ import annotations

import hashlib
import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from eva_hpc.config.recipe import Recipe
from eva_hpc.config.section import Name, Section


def _scalar(value: Any) -> Any:
    if isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    text = "must be a finite number, text, true or false"
    more = "; give other values a name: {NAME: {KEY: VALUE}, …}" if value is None or isinstance(value, list | dict) else ""
    raise PydanticCustomError("plain_value", "{text}", {"text": text + more})


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


def _bundle(value: Any) -> Any:
    parts = value if isinstance(value, list) else [value]
    if parts and all((isinstance(part, str) and part) or (isinstance(part, dict) and part) for part in parts):
        return value
    text = "must be a variant of the recipe by name, dotted recipe keys with their values, or a list of such"
    raise PydanticCustomError("bundle", text)


def _form_of_axis(value: Any) -> str:
    return "named" if isinstance(value, dict) else "listed"


def _label(value: str) -> str:
    if not value.strip() or "," in value or "=" in value:
        raise PydanticCustomError("label", "must not be blank or have a comma or '=' in it: names of runs are made of it")
    return value


Label = Annotated[str, AfterValidator(_label)]
Bundle = Annotated[str | dict[str, Any] | list[str | dict[str, Any]], BeforeValidator(_bundle)]
"""What a named value sets: dotted keys, or the variant of the recipe that has them; or several of these in turn."""
Axis = Annotated[
    Annotated[AxisValues, Tag("listed")] | Annotated[dict[Label, Bundle], Field(min_length=1), Tag("named")],
    Discriminator(_form_of_axis),
]
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


class Paper(Section):
    """Which of the paper's tables stands beside ours.

    Its row is found by the axis values joined together: "DPO" and "+ eva" find "DPO + eva".
    """

    table: Literal["main", "informativeness", "sample_then_evolve", "evolvers"]
    names: dict[str, str] = Field(
        default_factory=dict,
        description="what the paper's rows call an axis value, if not the same; '' if they leave it out",
    )


class Table(Section):
    """What the table shows. Without columns it shows the default ones of the benchmarks."""

    caption: str = ""
    label: str = ""
    columns: tuple[Column, ...] = Field(default=(), strict=False)
    paper: Paper | None = Field(default=None, description="the paper's numbers beside ours")


class Sweep(Section):
    """A grid of recipes: every combination of the axes' values, times the seeds.

    An axis is a dotted key of the recipe with a list of values, or any name with named values that set several keys::

        axes:
          evolved_ratio: [0.0, 0.8]
          optimiser: {DPO: dpo, SimPO: simpo}                        # variants of the recipe
          rounds_on: {base: {rounds: 0}, + eva: {rounds: 1}}         # or the keys themselves
    """

    name: Name
    recipe: RecipeFiles = Field(description="a recipe file, or one for each scale: {lab: FILE, full: FILE}")
    axes: dict[str, Axis] = Field(
        min_length=1,
        description="values by dotted recipe key; or, under a name of its own, named values that each set several keys",
    )
    seeds: Seeds
    quick_seeds: int = Field(default=1, ge=1, description="how many of the seeds --quick keeps")
    table: Table = Table()

    @property
    def values(self) -> dict[str, tuple[Value, ...]]:
        """What each axis goes through, as runs and tables name it."""
        return {axis: tuple(values) for axis, values in self.axes.items()}


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

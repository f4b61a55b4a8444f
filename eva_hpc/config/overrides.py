"""Single keys set after a file was read: by ``--set recipe.rounds=2``, by a sweep's axis, by a recipe's quick keys."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

from eva_hpc.config.errors import ConfigError, did_you_mean
from eva_hpc.config.recipe import Recipe
from eva_hpc.config.schema import dotted_keys, place, shorthand
from eva_hpc.config.site import Site
from eva_hpc.config.sweep import Sweep
from eva_hpc.config.yaml_file import Document, KeyPath, Origin, dotted, found, read_value

Target = Literal["recipe", "sweep", "site"]
MODELS: dict[Target, type[BaseModel]] = {"recipe": Recipe, "sweep": Sweep, "site": Site}


@dataclass(frozen=True)
class Setting:
    """A key, the value it gets and where that was written."""

    path: KeyPath
    value: Any
    origin: Origin


def settings(arguments: Iterable[str], target: Target) -> list[Setting]:
    """What the arguments of ``--set`` say about the recipe, the sweep or the site. Values are YAML; the last one of a key wins.

    An axis is one key although its name has dots: ``sweep.axes.optimiser.beta=[0.05, 0.1]``.

    Raises:
        ConfigError: an argument, for whichever target, is not ``recipe.KEY=VALUE``, ``sweep.KEY=VALUE`` or ``site.KEY=VALUE``;
            one line for each.
    """
    chosen: list[Setting] = []
    problems: list[str] = []
    for argument in arguments:
        try:
            of, setting = _setting(argument)
        except ConfigError as error:
            problems += error.problems
            continue
        if of == target:
            chosen.append(setting)
    if problems:
        raise ConfigError(*problems)
    return chosen


def _setting(argument: str) -> tuple[str, Setting]:
    source = f"--set {argument}"
    name, equals, text = argument.partition("=")
    name = name.strip()
    target, *parts = name.split(".")
    if not equals:
        raise ConfigError(f"{source}: found no '='; write KEY=VALUE, e.g. recipe.responses_per_prompt=4")
    if target not in MODELS or not parts or "" in parts:
        known = [f"{of}.{key}" for of, model in MODELS.items() for key in dotted_keys(model)]
        same_end = [key for key in known if key.endswith(f".{name}")]
        near = f"; did you mean '{same_end[0]}'?" if same_end else did_you_mean(name, known)
        raise ConfigError(f"{source}: found the key {name!r}; must start with recipe., sweep. or site.{near}")
    if (target, parts[0]) == ("recipe", "quick"):
        raise ConfigError(f"{source}: found recipe.quick; set the key itself, --set comes after the quick keys")
    path: KeyPath = ("axes", ".".join(parts[1:])) if (target, parts[0]) == ("sweep", "axes") and parts[1:] else tuple(parts)
    return target, Setting(path, read_value(text, source), Origin(source))


def apply(document: Document, model: type[BaseModel], chosen: Sequence[Setting]) -> Document:
    """A copy of the document with the keys set, in order.

    A section on the way that the document does not have is made; one in short form (``policy: lab``) is written out first.

    Raises:
        ConfigError: a key is to be set in something that is not a section.
    """
    result = document.copy()
    for setting in chosen:
        _set(result, model, setting)
    return result


def _set(document: Document, model: type[BaseModel], setting: Setting) -> None:
    path, section = setting.path, document.data
    for length in range(1, len(path)):
        outer = path[:length]
        if outer[-1] not in section:
            section[str(outer[-1])] = {}
            document.origins[outer] = setting.origin
        inner = section[str(outer[-1])]
        short = shorthand(place(model, outer).type)
        if short and isinstance(inner, str):
            try:
                inner = short.expand(inner)
            except ValueError as error:
                raise ConfigError(document.at(outer, str(error))) from None
            section[str(outer[-1])] = inner
        if not isinstance(inner, dict):
            text = f"found {found(inner)} at {dotted(outer)}, which must be a section; or set {dotted(outer)} as a whole"
            raise ConfigError(f"{setting.origin.label()}: {dotted(path)}: {text}")
        section = inner
    for old in [key for key in document.origins if key[: len(path)] == path]:
        del document.origins[old]
    # A copy, because a later key may change a section that this one sets.
    section[str(path[-1])] = copy.deepcopy(setting.value)
    document.origins[path] = setting.origin

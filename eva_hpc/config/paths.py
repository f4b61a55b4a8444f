"""Where the paths in a recipe lead. One rule for all of them:

a relative path is looked for beside the file it is written in, then in the working directory; one given on the command line
only in the working directory. ``~`` is the home directory. Models may also be hub names: a name that is not a folder, does
not start with ``.``, ``/`` or ``~`` and has at most one ``/`` is one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from eva_hpc.config.benchmark import JudgedBenchmark, RewardBenchmark, official_roles, official_set
from eva_hpc.config.creator import ModelEvolver
from eva_hpc.config.errors import did_you_mean
from eva_hpc.config.recipe import FilePrompts, HubPrompts, PretrainedPolicy, Recipe
from eva_hpc.config.reward import model_paths
from eva_hpc.config.yaml_file import KeyPath, shown

_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


OfficialFile = Callable[[str, str], tuple[str, str]]
"""From the name of an official set and a role in it to the absolute path of the file, there or not, and its fingerprint."""


def by_name_only(set_: str, role: str) -> tuple[str, str]:
    """An official file known by its name alone, where nobody can say more."""
    return f"/official/{set_}/{role}", f"official:{set_}/{role}"


@dataclass(frozen=True)
class Reference:
    """Something outside the recipe that it names: a prompt file (then with its column), another file, a model or a data set
    of the hub; or, without naming it, a file of a benchmark's official set: then `text` is "SET/ROLE"."""

    key: KeyPath
    text: str
    kind: Literal["prompts", "file", "official", "model", "dataset"]
    column: str = ""


def references(recipe: Recipe) -> list[Reference]:
    """Everything outside that a recipe needs."""
    result = []
    if isinstance(recipe.policy, PretrainedPolicy):
        result.append(Reference(("policy", "path"), recipe.policy.path, "model"))
    if isinstance(recipe.prompts, FilePrompts):
        result.append(Reference(("prompts", "path"), recipe.prompts.path, "prompts", recipe.prompts.column))
    if isinstance(recipe.prompts, HubPrompts):
        result.append(Reference(("prompts", "name"), recipe.prompts.name, "dataset"))
    result += [Reference(key, path, "model") for key, path in model_paths(recipe.reward)]
    if isinstance(recipe.creator.evolver, ModelEvolver):
        result.append(Reference(("creator", "evolver", "path"), recipe.creator.evolver.path, "model"))
    if recipe.rewriter is not None and isinstance(recipe.rewriter.by, ModelEvolver):
        result.append(Reference(("rewriter", "by", "path"), recipe.rewriter.by.path, "model"))
    for index, questions in enumerate(recipe.decontaminate):
        place: KeyPath = ("decontaminate", index, "path")
        if questions.set is not None and questions.path is None:
            result.append(Reference(place, f"{questions.set}/questions", "official"))
        elif questions.path is not None:
            kind: Literal["file", "prompts"] = "file" if questions.set is not None else "prompts"
            result.append(Reference(place, questions.path, kind, questions.column))
    for name, benchmark in recipe.benchmarks.items():
        if isinstance(benchmark, RewardBenchmark):
            result.append(Reference(("benchmarks", name, "path"), benchmark.path, "prompts", benchmark.column))
            judge = model_paths(benchmark.reward, ("benchmarks", name, "reward")) if benchmark.reward is not None else []
            result += [Reference(key, path, "model") for key, path in judge]
        elif isinstance(benchmark, JudgedBenchmark):
            key = ("benchmarks", name, "files")
            named = {role: text for role, text in benchmark.files.model_dump().items() if text is not None}
            result += [Reference((*key, role), text, "file") for role, text in named.items()]
            official = official_roles(benchmark)
            result += [Reference((*key, role), f"{official_set(benchmark)}/{role}", "official") for role in official]
    return result


def section_of(recipe: Recipe, reference: Reference) -> Any:
    """The section of the recipe that has a reference."""
    section: Any = recipe
    for part in reference.key[:-1]:
        section = getattr(section, part) if isinstance(part, str) and isinstance(section, BaseModel) else section[part]
    return section


def resolve(text: str, folder: Path | None) -> Path | None:
    """The existing file or folder that a path means, absolute, by the rule of this module; None if there is none."""
    path = Path(text).expanduser()
    for base in ([folder] if folder else []) + [Path.cwd()]:
        if (base / path).exists():
            return Path(os.path.abspath(base / path))
    return None


def is_hub_name(text: str) -> bool:
    """Whether a model's name that is no existing folder can be a name on the hub."""
    return _HUB_NAME.fullmatch(text) is not None


def nothing_there(text: str, folder: Path | None) -> str:
    """The problem of a path that leads nowhere, with the places looked at and the nearest name there."""
    path = Path(text).expanduser()
    bases = [Path.cwd()] if folder is None or folder.absolute() == Path.cwd() else [folder, Path.cwd()]
    parents = [(base / path).parent for base in bases]
    near = did_you_mean(path.name, [file.name for parent in parents if parent.is_dir() for file in parent.iterdir()])
    where = "" if path.is_absolute() else f"; looked in {' and '.join(str(shown(base)) for base in bases)}"
    return f"found {text!r}, which does not exist{where}{near}"


def replaced(recipe: Recipe, texts: Mapping[KeyPath, str]) -> Recipe:
    """The recipe with other texts at some of its references."""
    data: dict[str, Any] = recipe.model_dump()
    for key, text in texts.items():
        section: Any = data
        for part in key[:-1]:
            section = section[part]
        section[key[-1]] = text
    return Recipe.model_validate(data)

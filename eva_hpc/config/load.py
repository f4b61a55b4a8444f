"""Load a site, load an experiment: files, ``--set`` and ``--quick`` in, validated models out. Everything is checked here.

Order: file, then quick keys (with ``--quick``), then ``--set``, then the values of the sweep's axes.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import eva_hpc
from eva_hpc.config import check, paths
from eva_hpc.config.errors import ConfigError, did_you_mean
from eva_hpc.config.fingerprint import fingerprint
from eva_hpc.config.overrides import Setting, apply, settings
from eva_hpc.config.recipe import Recipe
from eva_hpc.config.site import Site
from eva_hpc.config.sweep import Experiment, Sweep, Value
from eva_hpc.config.validate import validated
from eva_hpc.config.yaml_file import Document, KeyPath, Origin, dotted, read_yaml

Point = tuple[dict[str, Value], Recipe]
Axes = Mapping[str, Sequence[Sequence[Setting]]]
"""What each value of each axis sets."""


# ---------------------------------------------------------------------------- site


def load_site(name_or_path: str, overrides: Sequence[str] = (), *, known_stages: Collection[str]) -> Site:
    """A site by its file, or by name: ``sbatch/sites/NAME.yaml`` of the working directory, else of the source tree.

    Args:
        name_or_path: ``laptop``, or a path with a ``/`` or ending in ``.yaml``.
        overrides: arguments of ``--set``; those that start with ``site.`` apply.
        known_stages: the names that `stages` may have.

    Raises:
        ConfigError: no such site, or mistakes in its file.
    """
    document = apply(read_yaml(_site_file(name_or_path)), Site, settings(overrides, "site"))
    site = validated(Site, document)
    problems = [
        document.at(("stages", stage), _unknown_stage(stage, known_stages), of_key=True)
        for stage in site.stages
        if stage not in known_stages
    ]
    root = os.path.expandvars(os.path.expanduser(site.root))
    if unset := re.findall(r"\$\{?\w+\}?", root):
        problems.append(document.at(("root",), f"found {site.root!r}; the environment has no {', '.join(unset)}"))
    if problems:
        raise ConfigError(*problems)
    return site.model_copy(update={"root": root})


def _site_file(name_or_path: str) -> Path:
    if "/" in name_or_path or name_or_path.endswith((".yaml", ".yml")):
        return Path(name_or_path)
    folders = (Path("sbatch/sites"), Path(eva_hpc.__file__).parents[1] / "sbatch" / "sites")
    for folder in folders:
        if (folder / f"{name_or_path}.yaml").is_file():
            return folder / f"{name_or_path}.yaml"
    names = sorted({file.stem for folder in folders for file in folder.glob("*.yaml")})
    available = ", ".join(names) or "none here"
    text = f"no such site; available: {available}, or the path of a site file{did_you_mean(name_or_path, names)}"
    raise ConfigError(f"site '{name_or_path}': {text}")


def _unknown_stage(stage: str, known: Collection[str]) -> str:
    return f"unknown stage; allowed: {', '.join(sorted(known))}{did_you_mean(stage, known)}"


# ---------------------------------------------------------------------------- experiment


def load_experiment(
    sweep_file: str | Path,
    *,
    site: Site,
    overrides: Sequence[str] = (),
    quick: bool = False,
    recipe: str | None = None,
    official: paths.OfficialFile = paths.by_name_only,
) -> Experiment:
    """A sweep with its recipe for this site, every grid point validated, every named file checked and fingerprinted.

    Args:
        sweep_file: the sweep.
        site: its `scale` chooses among the recipes of the sweep, and its engines must have room for what these ask.
        overrides: arguments of ``--set``; those that start with ``sweep.`` or ``recipe.`` apply.
        quick: apply the recipe's quick keys and keep the first `quick_seeds` seeds.
        recipe: another choice than the site's: a scale of the sweep (``lab``, ``full``) or a recipe file.
        official: where the official files of a benchmark lie, there or not, and their fingerprints.

    Raises:
        ConfigError: one line for each mistake. Mistakes of a grid point point to the value of the axis in the sweep file.
    """
    sweep_document = apply(read_yaml(Path(sweep_file)), Sweep, settings(overrides, "sweep"))
    sweep = validated(Sweep, sweep_document)
    written, own = _recipe_document(_recipe_file(sweep, sweep_document, site, recipe), ())
    plain = validated(Recipe, written)
    _check_variants(written, plain)
    quick_document = _with_quick_keys(written, plain)
    chosen = settings(overrides, "recipe")
    axes = {axis: _settings_of(axis, sweep, sweep_document, plain, written) for axis in sweep.axes}
    _refuse_idle_keys(axes, sweep_document, chosen)
    document = apply(quick_document if quick else written, Recipe, chosen)
    base = validated(Recipe, document)

    single = [*own, *(_settings(plain.quick, written, ("quick",)) if quick else [])]
    points, fingerprints = _points(sweep, axes, document, single, official)
    problems = [sweep_document.at(*problem) for problem in check.table_problems(sweep.table, base)]
    if problems:
        raise ConfigError(*problems)
    check.check_lengths(site, [recipe for _, recipe in points])
    check.check_judged_lengths(site, base)
    if quick:
        sweep = sweep.model_copy(update={"seeds": sweep.seeds[: sweep.quick_seeds]})
    experiment = Experiment(sweep=sweep, recipe=base, points=points, fingerprints=fingerprints, quick=quick)
    if site.executor == "local":  # on Slurm the job's environment counts, and this may be a laptop that only plans
        check.check_engines(experiment)
    return experiment


def _recipe_file(sweep: Sweep, document: Document, site: Site, wanted: str | None) -> Path:
    """The recipe's file, by the command line, else by the site's scale."""
    by_scale = sweep.recipe if isinstance(sweep.recipe, dict) else {}
    if wanted is not None and wanted not in by_scale:
        file = paths.resolve(wanted, None)
        if file is None:
            scales = f"; the sweep's own are {', '.join(by_scale)}" if by_scale else ""
            raise ConfigError(f"--recipe {wanted}: {paths.nothing_there(wanted, None)}{scales}")
        return file
    key: KeyPath = ("recipe",)
    if isinstance(sweep.recipe, str):
        text = sweep.recipe
    else:
        scale = wanted or site.scale
        if scale not in by_scale:
            text = f"has no recipe for the scale '{scale}' of the site '{site.name}'; it has {', '.join(by_scale)}"
            raise ConfigError(document.at(key, text))
        key, text = ("recipe", scale), by_scale[scale]
    file = paths.resolve(text, document.origin(key).folder)
    if file is None:
        raise ConfigError(document.at(key, paths.nothing_there(text, document.origin(key).folder)))
    return file


def read_recipe(file: Path) -> Document:
    """A recipe's document. One that says ``extends: FILE`` is that file with the dotted keys that follow set in it.

    Raises:
        ConfigError: a file cannot be read, or extends itself.
    """
    return _recipe_document(file, ())[0]


def _recipe_document(file: Path, open_files: tuple[Path, ...]) -> tuple[Document, list[Setting]]:
    """The document, and the dotted keys that extending files set in it."""
    document = read_yaml(file)
    name = document.data.pop("extends", None)
    if name is None:
        return document, []
    folder = document.origin(("extends",)).folder
    base = paths.resolve(name, folder) if isinstance(name, str) and name else None
    if base is None or not base.is_file():
        text = paths.nothing_there(name, folder) if isinstance(name, str) and base is None else "must be a recipe file"
        raise ConfigError(document.at(("extends",), text))
    if base in (*open_files, file.absolute()):
        raise ConfigError(document.at(("extends",), f"found {name!r}, which extends this file in turn"))
    variants = document.data.pop("variants", {})
    keys = [Setting(_place(key), value, document.origin((key,))) for key, value in document.data.items()]
    # Variants come beside those there are; every other section takes the place of the one there.
    keys += (
        [Setting(("variants", one), value, document.origin(("variants", one))) for one, value in variants.items()]
        if isinstance(variants, dict)
        else [Setting(("variants",), variants, document.origin(("variants",)))]
    )
    below, of_below = _recipe_document(base, (*open_files, file.absolute()))
    result = apply(below, Recipe, keys)
    for path, origin in document.origins.items():  # of what lies inside a section that was set
        if len(path) > 1:
            result.origins[(*_place(str(path[0])), *path[1:])] = origin
    return result, [*of_below, *(key for key in keys if len(key.path) > 1 and key.path[0] not in ("quick", "variants"))]


def _place(key: str) -> KeyPath:
    """What a dotted key of an extending file sets. The keys inside `quick` and a variant have dots themselves."""
    parts = key.split(".")
    depth = {"quick": 1, "variants": 2}.get(parts[0], len(parts))
    return (*parts[:depth], *([".".join(parts[depth:])] if parts[depth:] else []))


def _settings(keys: Mapping[str, Any], document: Document, at: KeyPath) -> list[Setting]:
    """The settings that a mapping of dotted keys at a place of a document means."""
    return [Setting(tuple(key.split(".")), value, document.origin((*at, key))) for key, value in keys.items()]


def _with_quick_keys(document: Document, recipe: Recipe) -> Document:
    """The recipe as ``--quick`` runs it. Validated in any case, so that a mistake in it is found before it is needed."""
    result = apply(document, Recipe, _settings(recipe.quick, document, ("quick",)))
    validated(Recipe, result)
    return result


def _check_variants(document: Document, recipe: Recipe) -> None:
    """A mistake in a variant is found before an axis takes it."""
    for name, keys in recipe.variants.items():
        validated(Recipe, apply(document, Recipe, _settings(keys, document, ("variants", name))))


def _settings_of(axis: str, sweep: Sweep, document: Document, recipe: Recipe, written: Document) -> list[list[Setting]]:
    """What each value of an axis sets, in their order.

    Raises:
        ConfigError: a named value is a variant that the recipe does not have.
    """
    values = sweep.axes[axis]
    if not isinstance(values, Mapping):
        return [[_axis_setting(axis, value, index, document)] for index, value in enumerate(values)]
    result = []
    for label, bundle in values.items():
        place: KeyPath = ("axes", axis, label)
        several = isinstance(bundle, list)
        chosen: list[Setting] = []
        for index, one in enumerate(bundle if several else [bundle]):
            at = (*place, index) if several else place
            if isinstance(one, Mapping):
                chosen += _settings(one, document, at)
            elif isinstance(one, str) and one in recipe.variants:
                chosen += _settings(recipe.variants[one], written, ("variants", one))
            else:
                names = ", ".join(recipe.variants) or "none"
                text = f"found {one!r}; must be a variant of the recipe {recipe.name}: {names}, or a section of dotted keys"
                raise ConfigError(document.at(at, text + did_you_mean(str(one), recipe.variants)))
        result.append(chosen)
    return result


def _surviving(single: Sequence[Setting], chosen: Sequence[Setting]) -> list[Setting]:
    """The dotted keys of extending files and of `quick` in sections that an axis replaces, but those that it sets itself."""
    return [
        one
        for one in single
        if any(one.path[: len(other.path)] == other.path and not _sets(other, one.path) for other in chosen)
        and not any(other.path == one.path for other in chosen)
    ]


def _sets(setting: Setting, path: KeyPath) -> bool:
    """Whether the value of a setting has a key of its own at this place."""
    value = setting.value
    for part in path[len(setting.path) :]:
        if not isinstance(value, Mapping) or part not in value:
            return False
        value = value[str(part)]
    return True


def _refuse_idle_keys(axes: Axes, document: Document, chosen: Sequence[Setting]) -> None:
    """An axis must not silently win over ``--set`` or over another axis, nor set what changes no result; nor may ``--set``."""
    problems = [
        f"{setting.origin.label()}: found recipe.variants; set the keys themselves, or name them in an axis of the sweep"
        for setting in chosen
        if setting.path[0] == "variants"
    ]
    keys = {axis: {setting.path for value in values for setting in value} for axis, values in axes.items()}
    for axis, paths_set in keys.items():
        for path in paths_set:
            if path[0] in ("name", "quick", "variants"):
                text = f"sets {dotted(path)}, which changes no result" if axis != dotted(path) else "changes no result"
                problems.append(document.at(("axes", axis), text, of_key=True))
            if path == ("optimiser", "loss") and axis == "optimiser.loss":
                text = "the keys of one loss are not those of another; name whole sections: {DPO: dpo, SimPO: simpo} (variants)"
                problems.append(document.at(("axes", axis), text, of_key=True))
            for setting in chosen:
                if setting.path[: len(path)] == path:
                    text = f"the sweep's axis {axis} sets it; use sweep.axes.{axis}=[...] instead"
                    problems.append(f"{setting.origin.label()}: {dotted(setting.path)}: {text}")
            for other, of_other in keys.items():
                if other != axis and any(one[: len(path)] == path for one in of_other):
                    problems.append(
                        document.at(("axes", other), f"the axis {axis} sets it too; one of them must go", of_key=True)
                    )
    if problems:
        raise ConfigError(*problems)


def _points(
    sweep: Sweep, axes: Axes, document: Document, single: Sequence[Setting], official: paths.OfficialFile
) -> tuple[tuple[Point, ...], dict[str, str]]:
    """Every combination of the axes' values with its recipe, and the fingerprints of what these name.

    Raises:
        ConfigError: the mistakes of all points, each once.
    """
    points: list[Point] = []
    fingerprints: dict[str, str] = {}
    problems: list[str] = []
    seen: dict[tuple[paths.Reference, Origin], tuple[str, check.Problem | None]] = {}
    for indices in itertools.product(*(range(len(values)) for values in axes.values())):
        chosen = [setting for values, index in zip(axes.values(), indices, strict=True) for setting in values[index]]
        try:
            at_point = apply(document, Recipe, [*chosen, *_surviving(single, chosen)])
            recipe = validated(Recipe, at_point)
        except ConfigError as error:
            problems += error.problems
            continue
        texts: dict[KeyPath, str] = {}
        found: list[check.Problem] = list(check.problems(recipe))
        for reference in paths.references(recipe):
            if reference.kind == "official":
                texts[reference.key], of_content = official(*reference.text.split("/"))
                fingerprints[texts[reference.key]] = of_content
                continue
            known = (reference, at_point.origin(reference.key))
            if known not in seen:
                seen[known] = _located(*known)
            texts[reference.key], problem = seen[known]
            found += [problem] if problem else []
        problems += [at_point.at(*problem) for problem in found]
        if not problems:
            fingerprints |= {text: fingerprint(text) for text in texts.values() if text not in fingerprints}
            point = {axis: values[index] for (axis, values), index in zip(sweep.values.items(), indices, strict=True)}
            points.append((point, paths.replaced(recipe, texts)))
    if problems:
        raise ConfigError(*problems)
    return tuple(points), fingerprints


def _axis_setting(axis: str, value: Value, index: int, document: Document) -> Setting:
    """The setting of one listed value: errors of the key name the axis's line, errors of the value the value's."""
    of_value = document.origin(("axes", axis, index))
    key = document.origin(("axes", axis))
    return Setting(tuple(axis.split(".")), value, Origin(of_value.source, of_value.folder, key.key_line, of_value.line))


def _located(reference: paths.Reference, origin: Origin) -> tuple[str, check.Problem | None]:
    """The absolute path (or hub name) of a reference, and its problem."""
    if reference.kind == "dataset":
        return reference.text, None
    path = paths.resolve(reference.text, origin.folder)
    if path is not None:
        return str(path), check.content_problem(reference, path)
    if reference.kind == "model" and paths.is_hub_name(reference.text):
        return reference.text, None
    return reference.text, (reference.key, paths.nothing_there(reference.text, origin.folder))

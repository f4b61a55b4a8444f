"""Load a site, load an experiment: files, ``--set`` and ``--quick`` in, validated models out. Everything is checked here.

Order: file, then quick keys (with ``--quick``), then ``--set``, then the values of the sweep's axes.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path

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
    written = read_yaml(_recipe_file(sweep, sweep_document, site, recipe))
    plain = validated(Recipe, written)
    quick_document = _with_quick_keys(written, plain)
    chosen = settings(overrides, "recipe")
    _refuse_idle_keys(sweep, sweep_document, chosen)
    document = apply(quick_document if quick else written, Recipe, chosen)
    base = validated(Recipe, document)

    points, fingerprints = _points(sweep, sweep_document, document, base, official)
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


def _with_quick_keys(document: Document, recipe: Recipe) -> Document:
    """The recipe as ``--quick`` runs it. Validated in any case, so that a mistake in it is found before it is needed."""
    chosen = [Setting(tuple(key.split(".")), value, document.origin(("quick", key))) for key, value in recipe.quick.items()]
    result = apply(document, Recipe, chosen)
    validated(Recipe, result)
    return result


def _refuse_idle_keys(sweep: Sweep, document: Document, chosen: Sequence[Setting]) -> None:
    """An axis must not silently win over ``--set`` or over another axis, nor set what changes no result."""
    problems = []
    for axis in sweep.axes:
        path = tuple(axis.split("."))
        if path[0] in ("name", "quick"):
            problems.append(document.at(("axes", axis), "cannot be an axis: it changes no result", of_key=True))
        for setting in chosen:
            if setting.path[: len(path)] == path:
                text = f"the sweep's axis {axis} sets it; use sweep.axes.{axis}=[...] instead"
                problems.append(f"{setting.origin.label()}: {dotted(setting.path)}: {text}")
        for other in sweep.axes:
            if other != axis and tuple(other.split("."))[: len(path)] == path:
                problems.append(document.at(("axes", other), f"the axis {axis} sets it too; one of them must go", of_key=True))
    if problems:
        raise ConfigError(*problems)


def _points(
    sweep: Sweep, sweep_document: Document, document: Document, base: Recipe, official: paths.OfficialFile
) -> tuple[tuple[Point, ...], dict[str, str]]:
    """Every combination of the axes' values with its recipe, and the fingerprints of what these name.

    Raises:
        ConfigError: the mistakes of all points, each once.
    """
    points: list[Point] = []
    fingerprints: dict[str, str] = {}
    problems: list[str] = []
    seen: dict[tuple[paths.Reference, Origin], tuple[str, check.Problem | None]] = {}
    for indices in itertools.product(*(range(len(values)) for values in sweep.axes.values())):
        chosen = [_axis_setting(sweep, sweep_document, axis, index) for axis, index in zip(sweep.axes, indices, strict=True)]
        try:
            at_point = apply(document, Recipe, chosen)
            recipe = validated(Recipe, at_point)
        except ConfigError as error:
            problems += error.problems
            continue
        texts: dict[KeyPath, str] = {}
        found: list[check.Problem] = [*check.lab_problems(recipe), *check.judge_problems(recipe)]
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
            point = {axis: sweep.axes[axis][index] for axis, index in zip(sweep.axes, indices, strict=True)}
            points.append((point, paths.replaced(recipe, texts)))
    if problems:
        raise ConfigError(*problems)
    return tuple(points), fingerprints


def _axis_setting(sweep: Sweep, document: Document, axis: str, index: int) -> Setting:
    """The setting of one axis value: errors of the key name the axis's line, errors of the value the value's."""
    value = document.origin(("axes", axis, index))
    key = document.origin(("axes", axis))
    origin = Origin(value.source, value.folder, key.key_line, value.line)
    return Setting(tuple(axis.split(".")), sweep.axes[axis][index], origin)


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

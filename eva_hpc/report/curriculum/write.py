"""A sweep's curriculum on disk: run by run, so that a large one fits into memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from eva_hpc.config.sweep import Value
from eva_hpc.plan.plan import Plan
from eva_hpc.report.curriculum import figures, files
from eva_hpc.report.curriculum.collect import Collector, parts_of
from eva_hpc.report.curriculum.embeddings import Embedder
from eva_hpc.report.curriculum.judging import Ratings
from eva_hpc.report.curriculum.measure import Measurer

Point = tuple[tuple[str, Value], ...]


def write_curriculum(
    plan: Plan,
    collector: Collector,
    embedder: Embedder,
    topics: int,
    ratings: Ratings,
    rated: str,
    recipe: str,
    folder: Path,
) -> list[Path]:
    """Write all files and figures that the store has data for; returns their paths, none if it has no prompts at all.

    Args:
        plan: of the sweep.
        collector: of its store; it then knows what is missing.
        embedder: makes vectors of prompts.
        topics: how many clusters they are put into.
        ratings: of a judge.
        rated: who judged, or why nobody did, in words.
        recipe: the name of the recipe, which the figures show.
        folder: where to.
    """
    if not any(collector.prompts(part.pair.inputs["base"]) for run in plan.runs for part in parts_of(plan, run)):
        return []
    folder.mkdir(parents=True, exist_ok=True)
    summaries: list[dict[str, Any]] = []
    values: dict[Point, figures.Values] = {}
    measurer = Measurer(plan, collector, embedder, topics, ratings)

    def prompt_rows() -> Iterator[dict[str, Any]]:
        for sets in measurer.runs():
            for one in sets:
                summaries.append(one.summary)
                values.setdefault(_point(one.summary), figures.Values()).add(one.rows)
                yield from one.rows

    paths = [files.write_prompts(folder, prompt_rows())]
    paths += files.write_summary(folder, summaries)
    admission = [row for run in plan.runs for part in parts_of(plan, run) for row in collector.admission_of(part)]
    paths.append(files.write_admission(folder, admission))
    captions, drawn = _draw(summaries, values, recipe, folder)
    missing = list(collector.missing)
    about = files.write_about(folder, embedder=embedder.name, topics=topics, judged=rated, figures=captions, missing=missing)
    return [*paths, about, *drawn]


def _draw(
    summaries: Sequence[dict[str, Any]], values: Mapping[Point, figures.Values], recipe: str, folder: Path
) -> tuple[dict[str, str], list[Path]]:
    """Two figures for each grid point, numbered where there are several; their captions by name, and all paths."""
    panels = figures.panels_of(summaries)
    limits = figures.limits_of(summaries, panels)
    captions, paths = {}, []
    for number, (point, of_prompts) in enumerate(values.items(), start=1):
        rows = [row for row in summaries if _point(row) == point]
        seeds = len({row["seed"] for row in rows})
        of_point = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in point)
        title = f"{recipe}: {of_point}; {seeds} {'seed' if seeds == 1 else 'seeds'}"
        drawings = {
            "rounds": figures.rounds_figure(rows, title, limits, panels),
            "distributions": figures.distributions_figure(of_prompts, title),
        }
        for kind, drawing in drawings.items():
            name = f"{kind}-{number:02}" if len(values) > 1 else kind
            captions[name] = f"{title}. {figures.CAPTIONS[kind]}"
            paths += figures.save(drawing, folder, name)
    return captions, paths


def _point(row: Mapping[str, Any]) -> Point:
    return tuple(row["point"].items())

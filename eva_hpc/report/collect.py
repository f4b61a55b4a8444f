"""Metric rows from the store: what each finished run measured, with where it comes from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress

import orjson

from eva_hpc.benchmarks.records import Metric
from eva_hpc.plan.plan import Plan, PlannedRun
from eva_hpc.report.aggregate import MetricRow
from eva_hpc.store.artifacts import Store
from eva_hpc.store.records import read_jsonl

TOO_FEW = "too few"
"""How the note of a round that was smaller than asked for begins."""


def collect(plan: Plan, store: Store) -> list[MetricRow]:
    """One row for every run, benchmark and metric that the store has."""
    rows = []
    smaller = _smaller_rounds(plan, store)
    for run in plan.runs:
        pairs = _pairs_trained(plan, run, store)
        for benchmark, identity in run.evaluations.items():
            artifact = store.find(identity)
            if artifact is None:
                continue
            manifest = artifact.manifest
            rows += [
                MetricRow(
                    run=run.name,
                    point=run.point,
                    seed=run.seed,
                    benchmark=benchmark,
                    metric=metric["metric"],
                    value=metric["value"],
                    n=metric["n"],
                    coverage=metric["coverage"],
                    low=metric.get("low"),
                    high=metric.get("high"),
                    reason=metric.get("reason", ""),
                    notes=[*metric.get("notes", []), *smaller.get(run.name, ())],
                    judge=run.judges[benchmark],
                    key=identity.key,
                    version=manifest["eva_hpc"],
                    git_commit=manifest["git_commit"],
                    packages=manifest["packages"],
                )
                for metric in [*read_jsonl(artifact.folder / "metrics.jsonl"), *pairs]
            ]
    return rows


def _pairs_trained(plan: Plan, run: PlannedRun, store: Store) -> list[Metric]:
    """How many pairs the last training of a run had: arms that differ in it differ in optimiser steps too."""
    last = [task for task in plan.tasks_of(run.name) if task.stage == "train"][-1]
    trained = store.find(last.identity)
    if trained is None:
        return []
    records = trained.manifest["records"]
    return [Metric(metric="pairs", value=records["out"], n=records["in"], coverage=1.0)]


def _smaller_rounds(plan: Plan, store: Store) -> Mapping[str, list[str]]:
    """By run, its rounds with fewer prompts than asked for: ``too few evolved prompts: 50 of 77 in RUN (round 1)``.

    So too where a source of fresh prompts ran out: ``too few fresh prompts: 4 of 320 in RUN (sample 2)``.
    """
    found: dict[str, list[str]] = defaultdict(list)
    for task in plan.tasks:
        if task.stage == "prompts" and task.spec["split"] and (drawn := store.find(task.identity)) is not None:
            source, left = task.spec["source"], drawn.manifest["records"]["out"]
            wanted = source.get("count") or source["limit"]
            if left < wanted:
                for run in task.runs:
                    found[run].append(f"{TOO_FEW} fresh prompts: {left} of {wanted} in {run} (sample {task.spec['split'] + 1})")
        if task.stage != "pair" or not task.spec["ratio"]:
            continue
        with suppress(FileNotFoundError):  # not done
            mixture = orjson.loads((store.folder(task.identity) / "mixture.json").read_bytes())
            if mixture["shortage"]:
                wanted = mixture["evolved"] + mixture["shortage"]
                for run in task.runs:
                    found[run].append(f"{TOO_FEW} evolved prompts: {mixture['evolved']} of {wanted} in {run} ({task.part})")
    return found

"""Metric rows from the store: what each finished run measured, with where it comes from."""

from __future__ import annotations

from eva_hpc.benchmarks.records import Metric
from eva_hpc.plan.plan import Plan, PlannedRun
from eva_hpc.report.aggregate import MetricRow
from eva_hpc.store.artifacts import Store
from eva_hpc.store.records import read_jsonl


def collect(plan: Plan, store: Store) -> list[MetricRow]:
    """One row for every run, benchmark and metric that the store has."""
    rows = []
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
                    notes=metric.get("notes", []),
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

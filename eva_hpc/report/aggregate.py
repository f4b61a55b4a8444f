"""Metric rows over seeds: every grid point x column of the table becomes a cell with mean, standard deviation and count.

A metric row, one JSON line for each run, benchmark and metric::

    {"run": "responses_per_prompt=6,seed=1", "point": {"responses_per_prompt": 6}, "seed": 1, "benchmark": "lab",
     "metric": "win_rate", "value": 61.2, "n": 300, "coverage": 1.0, "judge": "lab checker", "key": "5f0c…", "version": "0.1.0",
     "git_commit": "9e1b…", "packages": {"torch": "2.13.0"}}

`value` is null when the benchmark could not be scored, and `reason` then says why; `n` is the number of judged questions,
`coverage` their share of all; `low` and `high` are a 95 % interval over questions, where the benchmark has one.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypedDict

from eva_hpc.benchmarks.columns import default_columns
from eva_hpc.config.sweep import Column, Experiment, Value
from eva_hpc.plan.grid import run_name


class MetricRow(TypedDict):
    """One metric of one benchmark of one run, with its provenance."""

    run: str
    point: dict[str, Value]
    seed: int
    benchmark: str
    metric: str
    value: float | None
    n: int
    coverage: float
    low: float | None
    high: float | None
    reason: str
    notes: list[str]
    judge: str
    key: str
    version: str
    git_commit: str
    packages: dict[str, str]


@dataclass(frozen=True)
class Cell:
    """A metric at one grid point: its values by seed, the seeds that lack it, and the lowest coverage among its values."""

    values: Mapping[int, float]
    missing: tuple[int, ...]
    coverage: float | None

    @property
    def n(self) -> int:
        """How many seeds have a value."""
        return len(self.values)

    @cached_property
    def mean(self) -> float | None:
        """Mean over seeds; None without values."""
        return statistics.fmean(self.values.values()) if self.values else None

    @cached_property
    def std(self) -> float | None:
        """Sample standard deviation (ddof = 1) over seeds; None for fewer than two values."""
        return statistics.stdev(self.values.values()) if self.n > 1 else None


@dataclass(frozen=True)
class Line:
    """One row of the table: a grid point and its cells, one for each column."""

    point: Mapping[str, Value]
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Aggregate:
    """The table in numbers, and what the reader must know about them."""

    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    seeds: tuple[int, ...]
    judges: Mapping[str, tuple[str, ...]]  # benchmark -> judges, in the order of the columns
    missing_runs: tuple[str, ...]  # expected runs without any row
    ignored_runs: tuple[str, ...]  # runs with rows that the sweep does not ask for
    measured: tuple[tuple[str, str], ...]  # every (benchmark, metric) that has a row, in the order of the rows
    versions: tuple[str, ...]  # every "version (commit)" that a row was made with
    refused: tuple[str, ...] = ()  # "BENCHMARK of RUN: why it has no number"
    notes: tuple[str, ...] = ()  # "BENCHMARK: what a reader must know of its numbers"


_Run = tuple[tuple[tuple[str, Value], ...], int]


def _run(point: Mapping[str, Value], seed: int) -> _Run:
    return tuple(sorted(point.items())), seed


def aggregate(rows: Iterable[MetricRow], experiment: Experiment) -> Aggregate:
    """Statistics of the rows for every grid point of the experiment and every column of its table.

    Columns are those of the sweep's table or, without any, the default ones that any run measured. Every grid
    point and seed is expected; what has no row is named. Rows of runs that the experiment does not ask for are left out
    and their runs named.

    Raises:
        ValueError: a value is neither a number nor null, or two rows give one run's metric different values.
    """
    points = [point for point, _ in experiment.points]
    sweep = experiment.sweep
    seeds = sweep.seeds
    expected = {_run(point, seed): run_name(point, seed) for point in points for seed in seeds}

    found: dict[_Run, dict[tuple[str, str], MetricRow]] = {}
    measured: dict[tuple[str, str], None] = {}
    ignored: dict[str, None] = {}
    for row in rows:
        run, name = _run(row["point"], row["seed"]), (row["benchmark"], row["metric"])
        if run not in expected:
            ignored[row["run"]] = None
            continue
        before = found.setdefault(run, {}).setdefault(name, row)
        if _value(before) != _value(row):
            raise ValueError(f"run {row['run']} has two values of {' '.join(name)}: {before['value']} and {row['value']}")
        measured[name] = None

    defaults = default_columns(experiment.recipe.benchmarks)
    columns = sweep.table.columns or tuple(c for c in defaults if (c.benchmark, c.metric) in measured) or defaults
    return Aggregate(
        columns=columns,
        lines=tuple(Line(point, tuple(_cell(point, seeds, column, found) for column in columns)) for point in points),
        seeds=seeds,
        judges=_judges(columns, found.values()),
        missing_runs=tuple(name for run, name in expected.items() if run not in found),
        ignored_runs=tuple(ignored),
        measured=tuple(measured),
        versions=tuple(sorted({f"{row['version']} ({row['git_commit']})" for run in found.values() for row in run.values()})),
        refused=_refused(columns, found.values()),
        notes=_notes(columns, found.values()),
    )


def _value(row: MetricRow) -> float | None:
    """The row's value; None where there is none, which includes NaN and infinity."""
    value = row["value"]
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"run {row['run']}: {row['benchmark']} {row['metric']} is {value!r}, not a number")
    return float(value) if math.isfinite(value) else None


def _cell(
    point: Mapping[str, Value], seeds: Iterable[int], column: Column, found: Mapping[_Run, Mapping[tuple[str, str], MetricRow]]
) -> Cell:
    values: dict[int, float] = {}
    coverages: list[float] = []
    missing: list[int] = []
    for seed in seeds:
        row = found.get(_run(point, seed), {}).get((column.benchmark, column.metric))
        value = None if row is None else _value(row)
        if row is None or value is None:
            missing.append(seed)
        else:
            values[seed] = value
            coverages.append(row["coverage"])
    return Cell(values, tuple(missing), min(coverages, default=None))


def _judges(columns: Iterable[Column], runs: Iterable[Mapping[tuple[str, str], MetricRow]]) -> dict[str, tuple[str, ...]]:
    rows = [row for run in runs for row in run.values()]
    judges = {column.benchmark: {row["judge"] for row in rows if row["benchmark"] == column.benchmark} for column in columns}
    return {benchmark: tuple(sorted(names)) for benchmark, names in judges.items() if names}


def _refused(columns: Iterable[Column], runs: Iterable[Mapping[tuple[str, str], MetricRow]]) -> tuple[str, ...]:
    shown = {(column.benchmark, column.metric) for column in columns}
    rows = [row for run in runs for name, row in run.items() if name in shown and row["value"] is None and row.get("reason")]
    return tuple(dict.fromkeys(f"{row['benchmark']} of {row['run']}: {row['reason']}" for row in rows))


def _notes(columns: Iterable[Column], runs: Iterable[Mapping[tuple[str, str], MetricRow]]) -> tuple[str, ...]:
    shown = {(column.benchmark, column.metric) for column in columns}
    noted = [(name[0], row.get("notes", [])) for run in runs for name, row in run.items() if name in shown]
    return tuple(dict.fromkeys(f"{benchmark}: {note}" for benchmark, notes in noted for note in notes))


def readable(name: str) -> str:
    """A heading for a name in a file: "responses_per_prompt" becomes "Responses per prompt"."""
    text = " ".join(name.replace("_", " ").replace(".", " ").split())
    return text[:1].upper() + text[1:]

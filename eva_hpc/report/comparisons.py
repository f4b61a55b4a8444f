"""Which rows of the table differ from its reference row beyond noise: paired tests on the same questions.

The reference is the grid point of the recipe's own values, and of the first of named values, where the grid has it, else the
first. With two seeds or more both seeds and questions count as chance, with one seed only the questions; Holm's correction is
over all comparisons of the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from eva_hpc.config.sweep import Column, Experiment, Value
from eva_hpc.plan.plan import Plan, PlannedRun
from eva_hpc.store.artifacts import Store
from eva_hpc.store.records import read_jsonl

if TYPE_CHECKING:
    from eva_hpc.benchmarks.statistics.paired import Difference

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Comparison:
    """A grid point against the reference, in one column. `adjusted` is the p-value after Holm's correction."""

    point: Mapping[str, Value]
    reference: Mapping[str, Value]
    benchmark: str
    metric: str
    seeds: tuple[int, ...]
    difference: Difference
    adjusted: float | None

    @property
    def beyond_noise(self) -> bool:
        """Whether the corrected p-value is below 0.05."""
        return self.adjusted is not None and self.adjusted < SIGNIFICANT

    def to_json(self) -> dict[str, Any]:
        """One JSON object."""
        return {**asdict(self), "difference": self.difference.to_json() | {"adjusted_p_value": self.adjusted}}


Values = Mapping[tuple[str, str], tuple[Mapping[str, float], Mapping[str, float]]]
"""By benchmark and metric: values and weights by question."""


def reference_point(experiment: Experiment) -> Mapping[str, Value]:
    """The grid point that the others are compared with."""
    points = [point for point, _ in experiment.points]
    own = {axis: _own_value(experiment, axis) for axis in experiment.sweep.axes}
    return own if own in points else points[0]


def compare_rows(plan: Plan, store: Store, experiment: Experiment, columns: Sequence[Column]) -> list[Comparison]:
    """Every row of the table but the reference, in every column whose benchmark tells values by question."""
    from eva_hpc.benchmarks.statistics.paired import across_seeds, holm, over_seeds

    points = [point for point, _ in experiment.points]
    by_point: list[dict[int, Values]] = [{} for _ in points]
    judges: list[dict[str, set[str]]] = [{} for _ in points]
    for run in plan.runs:
        number = points.index(run.point)
        by_point[number][run.seed] = _values(store, run)
        for benchmark, judge in run.judges.items():
            judges[number].setdefault(benchmark, set()).add(judge)
    reference = points.index(dict(reference_point(experiment)))
    found = []
    for number, point in enumerate(points):
        for column in columns if number != reference else ():
            name = (column.benchmark, column.metric)
            arms = [
                {seed: values[name] for seed, values in by_point[one].items() if name in values} for one in (number, reference)
            ]
            seeds = tuple(sorted(arms[0].keys() & arms[1].keys()))
            if not seeds or judges[number][column.benchmark] != judges[reference][column.benchmark]:
                continue  # what two judges say is not comparable
            a, b = ({seed: values for seed, (values, _) in arm.items()} for arm in arms)
            a_weights, b_weights = ({seed: weights for seed, (_, weights) in arm.items()} for arm in arms)
            test = across_seeds if len(seeds) > 1 else over_seeds
            found.append((point, column, seeds, test(a, b, a_weights, b_weights)))
    known = [difference.p_value for *_, difference in found if difference.p_value is not None]
    adjusted = iter(holm(known))
    return [
        Comparison(
            point,
            points[reference],
            column.benchmark,
            column.metric,
            seeds,
            difference,
            None if difference.p_value is None else next(adjusted),
        )
        for point, column, seeds, difference in found
    ]


def _own_value(experiment: Experiment, axis: str) -> Any:
    values = experiment.sweep.axes[axis]
    if isinstance(values, Mapping):
        return next(iter(values))
    section: Any = experiment.recipe
    for name in axis.split("."):
        section = section.get(name) if isinstance(section, Mapping) else getattr(section, name, None)
    return section


def _values(store: Store, run: PlannedRun) -> Values:
    values: dict[tuple[str, str], tuple[dict[str, float], dict[str, float]]] = {}
    for benchmark, identity in run.evaluations.items():
        artifact = store.find(identity)
        if artifact is None or not (artifact.folder / "per_question.jsonl").is_file():
            continue
        refused = {row["metric"] for row in read_jsonl(artifact.folder / "metrics.jsonl") if row["value"] is None}
        for row in read_jsonl(artifact.folder / "per_question.jsonl"):
            if row["metric"] in refused:
                continue
            of_metric = values.setdefault((benchmark, row["metric"]), ({}, {}))
            of_metric[0][row["question_id"]] = row["value"]
            of_metric[1][row["question_id"]] = row["weight"]
    return values

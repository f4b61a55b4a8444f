from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eva_hpc.report.aggregate import aggregate, readable

AXES = {"responses_per_prompt": (2, 6)}
numbers = st.floats(-1e6, 1e6)


def test_a_cell_is_mean_and_sample_standard_deviation_over_seeds(experiment_of, row):
    rows = [row({"responses_per_prompt": k}, seed, k + seed) for k in (2, 6) for seed in (1, 2, 3)]

    result = aggregate(rows, experiment_of(AXES, seeds=(1, 2, 3)))

    assert [(line.point, line.cells[0].mean, line.cells[0].std, line.cells[0].n) for line in result.lines] == [
        ({"responses_per_prompt": 2}, 4.0, 1.0, 3),
        ({"responses_per_prompt": 6}, 8.0, 1.0, 3),
    ]
    assert result.lines[0].cells[0].values == {1: 3.0, 2: 4.0, 3: 5.0}
    assert result.missing_runs == result.ignored_runs == ()


@given(st.lists(numbers, min_size=2, max_size=10))
def test_mean_and_standard_deviation_are_those_of_numpy(experiment_of, row, values):
    rows = [row({"rounds": 1}, seed, value) for seed, value in enumerate(values)]

    (line,) = aggregate(rows, experiment_of({"rounds": (1,)}, seeds=tuple(range(len(values))))).lines

    assert line.cells[0].mean == pytest.approx(np.mean(values), rel=1e-9, abs=1e-6)
    assert line.cells[0].std == pytest.approx(np.std(values, ddof=1), rel=1e-6, abs=1e-6)


@given(st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_no_cell(experiment_of, row, rng: random.Random):
    experiment = experiment_of(AXES, table={"columns": [{"benchmark": "lab", "metric": "win_rate", "heading": "WR"}]})
    rows = [row({"responses_per_prompt": k}, seed, 0.1 * k * seed) for k in (2, 6) for seed in (1, 2)]
    reordered = list(rows)
    rng.shuffle(reordered)

    before, after = aggregate(rows, experiment), aggregate(reordered, experiment)

    assert [line.cells for line in after.lines] == [line.cells for line in before.lines]


def test_a_single_seed_has_no_standard_deviation(experiment_of, row):
    (line,) = aggregate([row({"rounds": 1}, 7, 0.5)], experiment_of({"rounds": (1,)}, seeds=(7,))).lines

    assert (line.cells[0].mean, line.cells[0].std, line.cells[0].n) == (0.5, None, 1)


def test_missing_runs_are_named_and_counted_in_no_cell(experiment_of, row):
    rows = [row({"responses_per_prompt": 2}, 1, 50.0)]

    result = aggregate(rows, experiment_of(AXES))

    assert result.missing_runs == (
        "responses_per_prompt=2,seed=2",
        "responses_per_prompt=6,seed=1",
        "responses_per_prompt=6,seed=2",
    )
    cells = [line.cells[0] for line in result.lines]
    assert [(cell.mean, cell.n, cell.missing) for cell in cells] == [(50.0, 1, (2,)), (None, 0, (1, 2))]


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_a_value_that_could_not_be_scored_is_missing_but_its_run_is_not(experiment_of, row, value):
    rows = [row({"rounds": 1}, 1, 50.0), row({"rounds": 1}, 2, value)]

    result = aggregate(rows, experiment_of({"rounds": (1,)}))

    assert result.missing_runs == ()
    assert (result.lines[0].cells[0].n, result.lines[0].cells[0].missing) == (1, (2,))


@pytest.mark.parametrize("value", ["61.2", True, [61.2]])
def test_a_value_that_is_no_number_is_refused(experiment_of, row, value):
    with pytest.raises(ValueError, match=r"run rounds=1,seed=1: lab win_rate is .*, not a number"):
        aggregate([row({"rounds": 1}, 1, value)], experiment_of({"rounds": (1,)}))


def test_the_same_row_twice_counts_once_but_another_value_is_refused(experiment_of, row):
    experiment = experiment_of({"rounds": (1,)}, seeds=(1,))

    twice = aggregate([row({"rounds": 1}, 1, 50.0), row({"rounds": 1}, 1, 50.0)], experiment)

    assert twice.lines[0].cells[0].values == {1: 50.0}
    with pytest.raises(ValueError, match=r"run rounds=1,seed=1 has two values of lab win_rate: 50.0 and 51.0"):
        aggregate([row({"rounds": 1}, 1, 50.0), row({"rounds": 1}, 1, 51.0)], experiment)


def test_runs_that_the_sweep_does_not_ask_for_are_left_out_and_named(experiment_of, row):
    rows = [row({"rounds": rounds}, seed, 50.0) for rounds in (1, 2) for seed in (1, 9)]

    result = aggregate(rows, experiment_of({"rounds": (1,)}, seeds=(1,)))

    assert result.ignored_runs == ("rounds=1,seed=9", "rounds=2,seed=1", "rounds=2,seed=9")
    assert [line.cells[0].n for line in result.lines] == [1]


def test_without_a_layout_the_default_columns_that_were_measured_are_shown(experiment_of, row):
    rows = [
        row({"rounds": 1}, 1, value, metric=metric)
        for metric, value in (("reward", 40.0), ("greedy", 50.0), ("win_rate", 61.2))
    ]

    columns = aggregate(rows, experiment_of({"rounds": (1,)})).columns

    assert [(column.group, column.heading, column.decimals) for column in columns] == [
        ("Against start", "WR", 1),
        ("Sampled reward", "all", 1),
    ]


def test_the_lowest_coverage_the_judges_and_the_versions_are_kept(experiment_of, row):
    rows = [
        row({"rounds": 1}, 1, 50.0, coverage=0.9, judge="b", git_commit="1111"),
        row({"rounds": 1}, 2, 50.0, judge="a"),
    ]

    result = aggregate(rows, experiment_of({"rounds": (1,)}))

    assert result.lines[0].cells[0].coverage == 0.9
    assert result.judges == {"lab": ("a", "b")}
    assert result.versions == ("0.1.0 (1111)", "0.1.0 (9e1b)")


def test_names_become_headings():
    assert readable("responses_per_prompt") == "Responses per prompt"
    assert readable("optimiser.learning_rate") == "Optimiser learning rate"

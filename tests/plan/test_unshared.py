"""Without sharing every run computes everything for itself, and the numbers are the same."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from eva_hpc.cluster.board import Board, State
from eva_hpc.cluster.local import LocalPool
from eva_hpc.config.load import load_experiment, load_site
from eva_hpc.plan.plan import make_plan
from eva_hpc.report.collect import collect
from eva_hpc.stages.registry import STAGES
from eva_hpc.store.artifacts import Store

AXES = {"responses_per_prompt": [2, 6], "evolved_ratio": [0.0, 0.8]}


@pytest.fixture
def plans(experiment_of):
    """The plan of an experiment with and without sharing."""

    def both(*arguments, **changes):
        experiment = experiment_of(*arguments, **changes)
        return make_plan(experiment), make_plan(experiment.model_copy(update={"sharing": False}))

    return both


def work(plan, run):
    """What is done for a run, without the keys."""
    return Counter((task.part, task.stage) for task in plan.tasks_of(run))


def test_no_task_is_needed_by_two_runs(plans, full):
    for recipe in ({}, {"recipe": full}):
        shared, unshared = plans(AXES, rounds=2, **recipe)
        assert all(len(task.runs) == 1 for task in unshared.tasks)
        assert len(unshared.tasks) == unshared.separate_stages == shared.separate_stages > len(shared.tasks)


def test_each_run_does_what_it_does_with_sharing(plans):
    shared, unshared = plans(AXES, rounds=2)
    for run in shared.runs:
        assert work(unshared, run.name) == work(shared, run.name)


def test_each_run_makes_only_the_responses_that_it_asked_for(plans, tasks_of):
    _, unshared = plans({"responses_per_prompt": [2, 6]}, seeds=(1,))
    asked = {task.runs[0]: task.spec["responses"] for task in tasks_of(unshared, "generate", "round 1")}
    assert asked == {"responses_per_prompt=2,seed=1": 2, "responses_per_prompt=6,seed=1": 6}


def test_runs_that_end_in_the_same_work_do_not_share_it_either(plans):
    """Without evolved prompts the creator's share decides nothing."""
    shared, unshared = plans({"creator.fraction": [0.25, 0.5]}, seeds=(1,), evolved_ratio=0.0)
    assert len({run.evaluations["lab"] for run in shared.runs}) == 1
    assert len({run.evaluations["lab"] for run in unshared.runs}) == 2


def test_nothing_is_taken_from_a_sweep_that_shares(plans):
    shared, unshared = plans(AXES)
    families = {(task.stage, task.identity.family) for task in shared.tasks}
    assert not [task.id for task in unshared.tasks if (task.stage, task.identity.family) in families]


def test_another_sweep_shares_nothing_even_with_runs_of_the_same_name(experiment_of):
    experiment = experiment_of(AXES).model_copy(update={"sharing": False})
    other = experiment.model_copy(update={"sweep": experiment.sweep.model_copy(update={"name": "other"})})
    assert not make_plan(experiment).by_id.keys() & make_plan(other).by_id.keys()


def test_a_larger_sweep_goes_on_from_the_runs_of_a_smaller_one(plans):
    _, smaller = plans({"responses_per_prompt": [2, 4]})
    _, larger = plans({"responses_per_prompt": [2, 3, 4]}, seeds=(1, 2, 3))
    assert smaller.by_id.keys() < larger.by_id.keys()


def test_the_results_have_a_folder_of_their_own(plans):
    shared, unshared = plans(AXES)
    assert unshared.name == f"{shared.name}-unshared"


@pytest.mark.slow
def test_the_metrics_are_those_of_the_sweep_that_shares(tmp_path):
    """One store for both, so that anything taken from the other sweep would be seen in the number of tasks done."""
    site = load_site("laptop", [f"site.root={tmp_path}"], known_stages=set(STAGES))
    settings = ["policy.steps=30", "prompts.count=16", "optimiser.batch_size=8", "benchmarks.lab.prompts=4"]
    overrides = [*(f"recipe.{one}" for one in settings), "sweep.axes.responses_per_prompt=[2,4]", "sweep.seeds=[1]"]
    shared = load_experiment(Path("sweeps/responses_per_prompt.yaml"), site=site, overrides=overrides)
    store, values = Store(tmp_path / "store"), []
    for experiment in (shared, shared.model_copy(update={"sharing": False})):
        plan = make_plan(experiment)
        board = Board(plan)
        LocalPool(board, site, store, tmp_path / experiment.name).run(plan.tasks)
        assert board.count(State.DONE) == len(plan.tasks)
        values.append({(row["run"], row["metric"]): (row["value"], row["n"]) for row in collect(plan, store)})
    assert values[0] == values[1]
    assert len(set(values[0].values())) > 10, "the runs differ in their numbers"

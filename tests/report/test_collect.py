"""Rows come from what is committed, with where it comes from."""

from __future__ import annotations

import json

import pytest

from eva_hpc.plan.plan import make_plan
from eva_hpc.report.aggregate import aggregate
from eva_hpc.report.collect import collect
from eva_hpc.report.layout import lay_out
from eva_hpc.store.artifacts import Store
from eva_hpc.store.records import write_jsonl
from tests.recipes import LAB

AXES = {"responses_per_prompt": (2, 6)}
MADE_BY = {"eva_hpc": "0.1.0", "git_commit": "9e1b", "packages": {"torch": "2"}}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def commit(store, plan, run, trained=40):
    """Commit what a run trained last and what it measured."""
    *_, last = [task for task in plan.tasks_of(run.name) if task.stage == "train"]
    for identity, metrics in ((last.identity, []), (run.evaluations["lab"], [("win_rate", 61.0), ("gain", None)])):
        store.folder(identity).mkdir(parents=True)
        rows = [{"metric": metric, "value": value, "n": 300, "coverage": 0.5} for metric, value in metrics]
        write_jsonl(store.folder(identity) / "metrics.jsonl", rows)
        store.commit(identity, {**MADE_BY, "records": {"in": 50, "out": trained, "set_aside": {}}})


def unique(experiment):
    """The experiment with recipes that differ by point, as loading makes them."""
    points = tuple((point, recipe.model_copy(update=point)) for point, recipe in experiment.points)
    return experiment.model_copy(update={"points": points})


def test_a_run_has_its_metrics_and_the_pairs_it_trained_on(experiment_of, store):
    plan = make_plan(unique(experiment_of(AXES, seeds=(1,))))
    first = plan.runs[0]
    commit(store, plan, first)

    rows = collect(plan, store)

    assert {row["run"] for row in rows} == {first.name}, "of the other run nothing is there"
    assert [(row["metric"], row["value"], row["n"], row["coverage"]) for row in rows] == [
        ("win_rate", 61.0, 300, 0.5), ("gain", None, 300, 0.5), ("pairs", 40, 50, 1.0),
    ]  # fmt: skip
    assert {(row["key"], row["version"], row["git_commit"], row["judge"]) for row in rows} == {
        (first.evaluations["lab"].key, "0.1.0", "9e1b", "lab checker")
    }


def test_each_run_is_looked_up_by_itself_however_many_there_are(experiment_of, store, monkeypatch):
    """Two looks for each run: its evaluation and its last training."""
    plan = make_plan(unique(experiment_of(AXES, seeds=tuple(range(10)))))
    for run in plan.runs:
        commit(store, plan, run)
    looks = []
    monkeypatch.setattr(store, "find", lambda identity, find=store.find: (looks.append(identity), find(identity))[1])

    collect(plan, store)

    last_trainings = [identity for identity in looks if identity.stage == "train"]
    assert len(looks) - len(last_trainings) == len(plan.runs)
    assert len(last_trainings) == len(plan.runs)


def test_rounds_smaller_than_asked_for_are_told_under_the_table(experiment_of, store):
    plan = make_plan(experiment := unique(experiment_of(AXES, seeds=(1,))))
    for run, shortage in zip(plan.runs, (27, 0), strict=True):
        commit(store, plan, run)
        (of_round,) = [task for task in plan.tasks_of(run.name) if task.stage == "pair" and task.part == "round 1"]
        folder = store.folder(of_round.identity)
        folder.mkdir(parents=True)
        (folder / "mixture.json").write_text(json.dumps({"evolved": 77 - shortage, "base": 19, "shortage": shortage}))

    layout = lay_out(aggregate(collect(plan, store), experiment), experiment)

    assert [note for note in layout.notes if "evolved" in note] == [
        "Rounds smaller than asked for: too few evolved prompts: 50 of 77 in responses_per_prompt=2, seed=1 (round 1)."
    ]


@pytest.mark.parametrize("sharing", [True, False])
def test_the_note_on_nested_responses_is_there_only_where_they_are_nested(experiment_of, sharing):
    experiment = experiment_of(AXES).model_copy(update={"sharing": sharing})
    notes = " ".join(lay_out(aggregate([], experiment), experiment).notes)
    assert ("the responses are nested" in notes) == sharing
    assert ("every run sampled its own responses" in notes) != sharing
    assert "the rows of a seed are not independent" in notes


def test_a_source_of_fresh_prompts_that_ran_out_is_told_under_the_table(experiment_of, store):
    recipe = {**LAB, "rounds_on": "new", "prompts": {"kind": "lab", "count": 40}}
    plan = make_plan(experiment := unique(experiment_of({"responses_per_prompt": (2,)}, seeds=(1,), recipe=recipe)))
    (run,) = plan.runs
    commit(store, plan, run)
    for task in plan.tasks:
        if task.stage == "prompts":
            store.folder(task.identity).mkdir(parents=True)
            left = 7 if task.spec["split"] else 40
            store.commit(task.identity, {**MADE_BY, "records": {"in": 47, "out": left, "set_aside": {}}})

    layout = lay_out(aggregate(collect(plan, store), experiment), experiment)

    assert [note for note in layout.notes if "fresh" in note] == [
        "Rounds smaller than asked for: too few fresh prompts: 7 of 40 in responses_per_prompt=2, seed=1 (sample 2)."
    ]

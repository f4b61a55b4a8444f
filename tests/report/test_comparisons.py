"""Which rows of a table differ beyond noise: made from artifacts with values by question."""

from __future__ import annotations

import random

import pytest

from eva_hpc.config.sweep import Column
from eva_hpc.plan.plan import make_plan
from eva_hpc.report.comparisons import compare_rows, reference_point
from eva_hpc.report.layout import lay_out
from eva_hpc.store.artifacts import Store
from eva_hpc.store.records import write_jsonl

COLUMN = Column(benchmark="lab", metric="win_rate", heading="WR")


@pytest.fixture
def made(tmp_path, experiment_of):
    """Comparisons of a sweep over the number of responses, whose win rates at each question are given by a rule."""

    def make(values, seeds=(1, 2, 3), k=(2, 6), refused=(), **changes):
        experiment = experiment_of({"responses_per_prompt": list(k)}, seeds)
        points = tuple(
            (p, r.model_copy(update={"responses_per_prompt": p["responses_per_prompt"]})) for p, r in experiment.points
        )
        experiment = experiment.model_copy(update={"points": points})
        plan, store = make_plan(experiment), Store(tmp_path / "store")
        plan = plan.model_copy(update={"runs": tuple(run.model_copy(update=changes.get(run.name, {})) for run in plan.runs)})
        for run in plan.runs:
            identity = run.evaluations["lab"]
            folder = store.folder(identity)
            folder.mkdir(parents=True, exist_ok=True)
            rows = [
                {"metric": "win_rate", "question_id": f"q{i}", "value": value, "weight": 1.0}
                for i, value in enumerate(values(run.point["responses_per_prompt"], run.seed))
            ]
            write_jsonl(folder / "per_question.jsonl", rows)
            value = None if run.name in refused else 50.0
            write_jsonl(folder / "metrics.jsonl", [{"metric": "win_rate", "value": value, "n": 1, "coverage": 1.0}])
            store.commit(identity, {})
        return compare_rows(plan, store, experiment, [COLUMN]), experiment

    return make


def noise(k, seed):
    rng = random.Random(f"{k} {seed}")
    return [rng.gauss(50, 10) for _ in range(80)]


def test_a_clear_difference_is_beyond_noise_and_noise_is_not(made):
    (clear,), _ = made(lambda k, seed: [value + 10 * (k == 2) for value in noise(k, seed)])
    assert clear.beyond_noise
    assert clear.difference.difference == pytest.approx(10, abs=3)
    assert (clear.point, clear.reference, clear.seeds) == ({"responses_per_prompt": 2}, {"responses_per_prompt": 6}, (1, 2, 3))


def test_noise_is_not_beyond_noise(made):
    (nothing,), _ = made(noise)
    assert not nothing.beyond_noise
    assert nothing.difference.low < 0 < nothing.difference.high


def test_one_seed_compares_over_questions(made):
    (clear,), _ = made(lambda k, seed: [value + 30 * (k == 2) for value in noise(k, seed)], seeds=(7,))
    assert clear.beyond_noise
    assert clear.seeds == (7,)


def test_a_refused_number_is_not_compared(made):
    refused = [f"responses_per_prompt=2,seed={seed}" for seed in (1, 2, 3)]
    assert made(noise, refused=refused)[0] == []
    (fewer,), _ = made(noise, refused=refused[:1])
    assert fewer.seeds == (2, 3)


def test_what_two_judges_say_is_not_compared(made):
    other = {f"responses_per_prompt=2,seed={seed}": {"judges": {"lab": "another"}} for seed in (1, 2, 3)}
    assert made(noise, **other)[0] == []


def test_the_reference_is_the_recipes_own_value_where_the_grid_has_it(experiment_of):
    assert reference_point(experiment_of({"responses_per_prompt": [2, 6]})) == {"responses_per_prompt": 6}
    assert reference_point(experiment_of({"responses_per_prompt": [2, 4]})) == {"responses_per_prompt": 2}
    assert reference_point(experiment_of({"optimiser.beta": [0.1, 0.05], "evolved_ratio": [0.8]})) == {
        "optimiser.beta": 0.05,
        "evolved_ratio": 0.8,
    }


def test_of_named_values_the_first_is_the_reference(experiment_of):
    axes = {"responses_per_prompt": [2, 6], "training": {"base": {"rounds": 0}, "+ eva": {"rounds": 1}}}

    assert reference_point(experiment_of(axes)) == {"responses_per_prompt": 6, "training": "base"}


def test_a_star_marks_it_and_the_note_says_what_it_means(made, row):
    from eva_hpc.report.aggregate import aggregate

    comparisons, experiment = made(lambda k, seed: [value + 10 * (k == 2) for value in noise(k, seed)])
    rows = [row({"responses_per_prompt": k}, seed, 50.0 + k + seed) for k in (2, 6) for seed in (1, 2, 3)]
    layout = lay_out(aggregate(rows, experiment), experiment, comparisons)
    assert [line[1].endswith("*") for line in layout.body] == [True, False]
    assert any(note.startswith("* differs from the row Responses per prompt 6 beyond noise") for note in layout.notes)
    quiet = lay_out(aggregate(rows, experiment), experiment, made(noise)[0])
    assert any(note.startswith("No row differs from the row Responses per prompt 6") for note in quiet.notes)

"""A plan holds all work of an experiment, each piece once, in an order in which it can be done."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eva_hpc.plan.eva import evaluations
from eva_hpc.plan.graph import in_order
from eva_hpc.plan.grid import runs
from eva_hpc.plan.plan import _maximal, alike
from eva_hpc.store.keys import Identity

EXPERIMENTS = st.fixed_dictionaries(
    {
        "axes": st.fixed_dictionaries(
            {
                "responses_per_prompt": st.lists(st.integers(2, 12), min_size=1, max_size=3, unique=True),
                "evolved_ratio": st.lists(st.sampled_from([0.0, 0.2, 0.5, 0.8, 1.0]), min_size=1, max_size=3, unique=True),
            }
        ),
        "seeds": st.lists(st.integers(0, 5), min_size=1, max_size=2, unique=True),
        "rounds": st.integers(1, 3),
        "warmup": st.sampled_from([None, {"responses_per_prompt": 3}]),
    }
)
MANY = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def keys(plan):
    """The keys of the evaluations by grid point, seed and benchmark."""
    return {
        (frozenset(run.point.items()), run.seed, name): identity.key
        for run in plan.runs
        for name, identity in run.evaluations.items()
    }


def test_runs_are_points_times_seeds_with_seeds_innermost(experiment_of):
    grid = runs(experiment_of({"responses_per_prompt": [2, 4], "evolved_ratio": [0.5, 1.0]}, seeds=(3, 1)))
    assert [run.name for run in grid][:3] == [
        "responses_per_prompt=2,evolved_ratio=0.5,seed=3",
        "responses_per_prompt=2,evolved_ratio=0.5,seed=1",
        "responses_per_prompt=2,evolved_ratio=1.0,seed=3",
    ]
    assert len({run.name for run in grid}) == len(grid) == 2 * 2 * 2


@given(EXPERIMENTS)
@MANY
def test_every_identity_is_planned_once_and_after_its_inputs(plan_of, wanted):
    plan = plan_of(**wanted)
    seen: set[Identity] = set()
    for task in plan.tasks:
        assert task.identity not in seen
        assert set(task.inputs.values()) <= seen
        seen.add(task.identity)
    assert len(plan.by_id) == len(plan.tasks) == len(seen)


@given(EXPERIMENTS)
@MANY
def test_no_task_is_contained_in_another(plan_of, wanted):
    tasks = plan_of(**wanted).tasks
    assert not [(a.id, b.id) for a in tasks for b in tasks if a is not b and a.identity.contains(b.identity)]


@given(EXPERIMENTS)
@MANY
def test_whatever_a_run_asks_for_some_task_of_that_run_provides(plan_of, experiment_of, wanted):
    experiment, plan = experiment_of(**wanted), plan_of(**wanted)
    for run in runs(experiment):
        roots = evaluations(run.recipe, run.seed, experiment.fingerprints)
        for node in in_order(judging.node for judging in roots.values()):
            assert plan.provider(node.identity).identity.contains(node.identity)
            assert run.name in plan.provider(node.identity).runs


@given(EXPERIMENTS)
@MANY
def test_what_a_task_reads_is_needed_by_all_runs_that_need_the_task(plan_of, wanted):
    plan = plan_of(**wanted)
    for task in plan.tasks:
        for parent in plan.parents(task):
            assert set(task.runs) <= set(parent.runs)


@given(EXPERIMENTS)
@MANY
def test_children_read_from_their_parents_and_a_run_has_the_tasks_that_name_it(plan_of, wanted):
    plan = plan_of(**wanted)
    for task in plan.tasks:
        assert list(plan.children(task)) == [other for other in plan.tasks if task in plan.parents(other)]
    for run in plan.runs:
        assert list(plan.tasks_of(run.name)) == [task for task in plan.tasks if run.name in task.runs]
    assert not plan.tasks_of("no such run")


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, unique=True))
def test_of_a_family_only_what_no_other_contains_is_made(slices):
    family = [Identity("generate", "f", (("fraction", a), ("responses", b))) for a, b in slices]
    provider = _maximal(family)
    assert set(provider.values()) == {one for one in family if not any(two != one and two.contains(one) for two in family)}
    assert all(provider[one].contains(one) and provider[provider[one]] == provider[one] for one in family)


@given(EXPERIMENTS, st.integers(2, 14), st.sampled_from([0.1, 0.9, 1.0]), st.integers(6, 9))
@MANY
def test_adding_values_to_a_sweep_changes_no_key(plan_of, wanted, responses, ratio, seed):
    axes = wanted["axes"]
    more = {
        "responses_per_prompt": [*dict.fromkeys([*axes["responses_per_prompt"], responses])],
        "evolved_ratio": [*dict.fromkeys([*axes["evolved_ratio"], ratio])],
    }
    larger = plan_of(**{**wanted, "axes": more, "seeds": [*wanted["seeds"], seed]})
    assert keys(plan_of(**wanted)).items() <= keys(larger).items()


@given(EXPERIMENTS)
@MANY
def test_every_run_of_a_grid_ends_in_an_evaluation_of_its_own(plan_of, wanted):
    found = keys(plan_of(**wanted))
    assert len(set(found.values())) == len(found)


@given(EXPERIMENTS)
@MANY
def test_sharing_saves_work_and_never_adds_any(plan_of, wanted):
    plan = plan_of(**wanted)
    assert plan.separate_stages >= len(plan.tasks)
    assert plan.separate_stages >= sum(len(plan.tasks_of(run.name)) for run in plan.runs)


def test_a_plan_survives_json(plan_of):
    plan = plan_of({"responses_per_prompt": [2, 6]}, rounds=2)
    again = type(plan).model_validate_json(plan.model_dump_json())
    assert again == plan
    assert again.by_id == plan.by_id


def test_a_sweep_of_many_rounds_can_be_planned(plan_of):
    assert len(plan_of({"rounds": [40]}, seeds=(1,)).tasks) > 300


def test_runs_that_an_axis_does_not_change_are_told(plan_of):
    plan = plan_of({"creator.informativeness": ["A_min", "var"], "rounds_on": ["evolved", "new"]}, seeds=(1,))

    assert alike(plan) == [
        "creator.informativeness=var,rounds_on=new,seed=1 is the same as creator.informativeness=A_min,rounds_on=new,seed=1: "
        "creator.informativeness changes nothing there"
    ]


def test_epochs_beside_steps_and_the_scale_of_unused_win_probabilities_change_nothing(plan_of):
    steps = plan_of({"optimiser.epochs": [1, 2]}, seeds=(1,), optimiser={"steps": 3})
    scale = plan_of({"pairing.win_scale": [1.0, 2.0]}, seeds=(1,))

    assert [len(alike(plan)) for plan in (steps, scale)] == [1, 1]

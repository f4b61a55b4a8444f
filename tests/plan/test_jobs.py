"""What is still to be done, and how it is cut into Slurm jobs."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eva_hpc.config.site import JobOptions, Resources, Site, Slurm
from eva_hpc.plan.describe import describe
from eva_hpc.plan.jobs import engine_of, engines_found_open, job_shape, make_arrays, make_jobs, pending_tasks, task_resources

AXES = {"responses_per_prompt": [2, 6], "evolved_ratio": [0.0, 0.8]}
MANY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def plan(plan_of):
    return plan_of(AXES, rounds=2)


def pending(plan, done):
    """Pending tasks when the artifacts of these tasks are there."""
    held = {plan.tasks[index].identity for index in done}
    return pending_tasks(plan, lambda identity: any(one.contains(identity) for one in held))


DONE = st.sets(st.integers(0, 60))


def those_there(plan, numbers):
    return {number % len(plan.tasks) for number in numbers}


def test_everything_is_pending_at_first_and_nothing_at_the_end(plan):
    assert pending(plan, []) == list(plan.tasks)
    assert pending(plan, range(len(plan.tasks))) == []


def test_finished_evaluations_need_nothing_even_if_what_led_to_them_is_gone(plan):
    ends = [index for index, task in enumerate(plan.tasks) if task.stage == "evaluate"]
    assert pending(plan, ends) == []


def test_what_only_finished_evaluations_needed_is_not_made_again(plan):
    finished = plan.runs[0].name
    ends = [index for index, task in enumerate(plan.tasks) if task.stage == "evaluate" and finished in task.runs]
    assert all(set(task.runs) - {finished} for task in pending(plan, ends))
    assert {run.name for run in plan.runs[1:]} == {name for task in pending(plan, ends) for name in task.runs} - {finished}


def test_an_artifact_in_the_middle_cuts_off_what_only_it_needed(plan):
    index, trained = next((i, task) for i, task in enumerate(plan.tasks) if task.stage == "train" and task.part == "round 2")
    left = pending(plan, [index])
    assert trained not in left
    assert not [task for task in left if task.stage == "pair" and trained.runs == task.runs and task.part == "round 2"]


@given(DONE)
@MANY
def test_pending_tasks_can_be_done_in_their_order(plan, numbers):
    there = those_there(plan, numbers)
    available = {plan.tasks[index].id for index in there}
    for task in pending(plan, there):
        assert {parent.id for parent in plan.parents(task)} <= available
        available.add(task.id)
    assert {plan.provider(end).id for run in plan.runs for end in run.evaluations.values()} <= available


@given(DONE)
@MANY
def test_every_pending_task_is_in_exactly_one_job_and_a_job_waits_for_all_it_reads(plan, slurm_site, numbers):
    tasks = pending(plan, those_there(plan, numbers))
    jobs = make_jobs(plan, tasks, slurm_site)
    placed = [name for job in jobs for name in job.tasks]
    assert sorted(placed) == sorted(task.id for task in tasks)
    assert len({job.name for job in jobs}) == len(jobs)
    job_of = {name: job.name for job in jobs for name in job.tasks}
    for job in jobs:
        reads = {job_of[parent.id] for name in job.tasks for parent in plan.parents(plan.by_id[name]) if parent.id in job_of}
        assert set(job.after) == reads - {job.name}
        assert len(set(job.after)) == len(job.after)


@given(DONE)
@MANY
def test_tasks_within_a_job_come_after_what_they_read(plan, slurm_site, numbers):
    for job in make_jobs(plan, pending(plan, those_there(plan, numbers)), slurm_site):
        for place, name in enumerate(job.tasks):
            assert not {parent.id for parent in plan.parents(plan.by_id[name])} & set(job.tasks[place:])


@given(DONE, st.sampled_from([None, frozenset(), frozenset({"generate", "train"})]), st.sampled_from([1, 2, 1001]))
@MANY
def test_arrays_hold_every_job_once_and_wait_for_earlier_arrays_only(plan, slurm_site, numbers, proven, largest):
    jobs = make_jobs(plan, pending(plan, those_there(plan, numbers)), slurm_site)
    arrays = make_arrays(plan, jobs, slurm_site, largest, proven)
    assert sorted(job.name for array in arrays for job in array.jobs) == sorted(job.name for job in jobs)
    earlier: list[str] = []
    array_of = {job.name: array.name for array in arrays for job in array.jobs}
    for array in arrays:
        waits = {*array.after, *([array.along] if array.along else [])}
        assert waits <= set(earlier)
        assert waits >= {array_of[name] for job in array.jobs for name in job.after}
        assert len(array.jobs) <= largest
        assert {job_shape(plan, job, slurm_site) for job in array.jobs} == {array.shape}
        earlier.append(array.name)
    assert len(set(earlier)) == len(earlier)


def test_each_run_is_one_job_and_the_runs_are_one_array(plan_of, slurm_site):
    plan = plan_of({"optimiser.learning_rate": [1e-4, 1e-5], "evolved_ratio": [0.5, 0.8]})
    names = sorted(run.name for run in plan.runs)
    jobs = make_jobs(plan, plan.tasks, slurm_site)
    assert sorted(job.name for job in jobs if job.run and job.link == 0) == names
    *_, main, judging = make_arrays(plan, jobs, slurm_site)
    assert sorted(job.run for job in main.jobs) == names
    assert [job.run for job in judging.jobs] == [job.run for job in main.jobs]


def test_judging_without_a_gpu_has_a_job_without_any_that_waits_for_its_own_run_only(plan_of, slurm_site):
    plan = plan_of({"optimiser.learning_rate": [1e-4, 1e-5]}, seeds=(1,))
    *_, main, judging = make_arrays(plan, make_jobs(plan, plan.tasks, slurm_site), slurm_site)
    assert {plan.by_id[task].stage for job in judging.jobs for task in job.tasks} == {"judge", "evaluate"}
    assert (main.shape.gpus_per_node, judging.shape.gpus_per_node, judging.shape.nodes) == (8, 0, 1)
    assert judging.along == main.name
    assert main.name not in judging.after


def test_where_nothing_needs_a_gpu_judging_stays_in_the_job_of_its_run(plan_of):
    site = Site(name="cpu", executor="slurm", scale="lab")
    plan = plan_of({"optimiser.learning_rate": [1e-4, 1e-5]}, seeds=(1,))
    assert {job.link for job in make_jobs(plan, plan.tasks, site)} == {0}


def test_stages_of_other_partitions_make_a_run_a_chain_of_jobs(plan_of):
    site = Site(
        name="two",
        executor="slurm",
        scale="lab",
        slurm=Slurm(partition="cpu", time_minutes=30),
        stages={"train": Resources(slurm=JobOptions(partition="gpu", time_minutes=600, mem_gb=64))},
    )
    plan = plan_of({"optimiser.learning_rate": [1e-4, 1e-5]}, seeds=(1,))
    jobs = [job for job in make_jobs(plan, plan.tasks, site) if job.run == plan.runs[0].name]
    shapes = [job_shape(plan, job, site) for job in jobs]
    assert [shape.placement.partition for shape in shapes][:3] == ["gpu", "cpu", "gpu"]
    assert [(shape.time_minutes, shape.mem_gb) for shape in shapes][:2] == [(600, 64), (30, None)]
    assert all(before.name in after.after for before, after in pairwise(jobs))


def test_the_first_job_of_an_array_with_a_stage_not_proven_yet_goes_ahead(plan_of):
    site = Site(name="cpu", executor="slurm", scale="lab")
    plan = plan_of({"optimiser.learning_rate": [1e-4, 1e-5, 1e-6]}, seeds=(1, 2))
    jobs = make_jobs(plan, plan.tasks, site)
    arrays = {array.name: array for array in make_arrays(plan, jobs, site, proven=set())}
    (rest,) = [array for array in arrays.values() if array.jobs[0].run and array.canary]
    assert len(arrays[rest.canary].jobs) == 1
    assert len(rest.jobs) == 5
    assert rest.canary in rest.after
    stages = {task.stage for task in plan.tasks}
    assert not any(array.canary for array in make_arrays(plan, jobs, site, proven=stages))


def test_pieces_of_a_too_large_array_wait_for_each_other(plan_of):
    site = Site(name="cpu", executor="slurm", scale="lab")
    plan = plan_of({"optimiser.learning_rate": [1e-4, 1e-5, 1e-6]}, seeds=(1, 2))
    runs = [array for array in make_arrays(plan, make_jobs(plan, plan.tasks, site), site, largest=2) if array.jobs[0].run]
    assert [len(array.jobs) for array in runs] == [2, 2, 2]
    assert runs[0].name in runs[1].after
    assert runs[1].name in runs[2].after


def test_a_job_gets_the_most_that_any_of_its_stages_needs(plan_of, slurm_site):
    plan = plan_of({"optimiser.learning_rate": [1e-4, 1e-5]}, seeds=(1,))
    run = next(job for job in make_jobs(plan, plan.tasks, slurm_site) if job.run)
    shape = job_shape(plan, run, slurm_site)
    assert (shape.nodes, shape.gpus_per_node, shape.cpus_per_node) == (2, 8, 12)


def test_a_stage_that_cannot_be_split_gets_one_process_whatever_the_site_says(plan_of, tasks_of, slurm_site):
    plan = plan_of({"evolved_ratio": [0.8]}, seeds=(1,))
    (select,) = tasks_of(plan, "select")
    assert task_resources(select, slurm_site).world_size == 1
    assert task_resources(tasks_of(plan, "generate")[0], slurm_site).world_size == 8


def test_the_description_counts_runs_stages_and_what_is_left(plan_of, slurm_site):
    plan = plan_of({"responses_per_prompt": [2, 10]}, seeds=(1, 2))
    text = describe(plan, plan.tasks[5:], slurm_site)
    assert "test-lab at site cluster: 4 runs" in text
    assert f"{plan.separate_stages} stages in all, {len(plan.tasks)} after sharing, 5 done" in text
    assert f"{len(plan.tasks) - 5} to do" in text
    assert "fraction 0.8 to 1, responses 2 to 10" in text
    rows = [line.split() for line in text.splitlines()]
    assert any(row[:5] == ["round", "1", "train", "4", "4"] for row in rows)
    assert any(row[:4] == ["warm-up", "generate", "4", "2"] for row in rows)


def test_on_this_machine_the_description_names_the_processes_instead_of_jobs(plan_of):
    plan = plan_of({"responses_per_prompt": [2]}, seeds=(1,))
    text = describe(plan, plan.tasks, Site(name="here", executor="local", scale="lab", slots=3))
    assert "at most 3 processes at once" in text
    assert "waits for" not in text


GPUS = {"ranks_per_node": 8, "gpus_per_rank": 1}


def one_run(plan_of, full, stages, **changes):
    """The tasks of a run in the order of its jobs, and those that find their engine open."""
    site = Site.model_validate({"name": "c", "executor": "slurm", "scale": "full", "stages": stages})
    plan = plan_of({"evolved_ratio": [0.8]}, seeds=(1,), recipe=full, **changes)
    jobs = [[plan.by_id[name] for name in job.tasks] for job in make_jobs(plan, plan.tasks, site)]
    found = set().union(*(engines_found_open(job, site) for job in jobs))
    return [task for job in jobs for task in job], found, plan, site


def test_stages_of_a_job_that_read_the_same_policy_follow_each_other(plan_of, full):
    same = dict.fromkeys(("generate", "evolve", "answer", "score", "train", "judge"), GPUS)
    tasks, found, plan, _ = one_run(plan_of, full, same, warmup=None)
    order = [(task.stage, task.id in found) for task in tasks if task.parallel != "one"]
    first = [("generate", False), ("answer", True), ("score", False), ("evolve", False), ("generate", True), ("score", False)]
    assert order == [*first, ("train", False), ("answer", False), ("judge", False), ("judge", False)]

    seen = set()
    for task in tasks:
        assert {parent.id for parent in plan.parents(task)} <= seen, "whatever the order, inputs come first"
        seen.add(task.id)


def test_stages_of_different_sizes_or_software_share_no_engine(plan_of, full):
    same = dict.fromkeys(("generate", "evolve", "answer"), GPUS)
    for changed in ({"ranks_per_node": 4}, {"threads": 3}, {"software": {"python": "/opt/other/bin/python"}}):
        tasks, found, _, site = one_run(plan_of, full, same | {"evolve": GPUS | changed})
        assert {task.stage for task in tasks if task.id in found}.isdisjoint({"evolve"})
        engines = {task.stage: engine_of(task, site) for task in tasks}
        assert engines["evolve"] != engines["generate"]
        assert engines["train"] is None

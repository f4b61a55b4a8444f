"""What a sweep will write, and whether there is room for it."""

from __future__ import annotations

import pytest

from eva_hpc.config.model_size import Size, Sizes
from eva_hpc.config.site import Site
from eva_hpc.plan.disk import Disk, disk_needed, shortage

SIZES = Sizes({"/models/policy": Size(9e9, "its name")}, {"/data/prompts.jsonl": Size(100, "lines")})


def site_of(**changes):
    return Site.model_validate({"name": "there", "executor": "slurm", "scale": "full", "slurm": {"max_parallel": 3}} | changes)


@pytest.fixture(scope="module")
def sweep(plan_of, full):
    """Four runs, each with a training of its own."""
    return plan_of({"optimiser.learning_rate": [1e-6, 2e-6]}, seeds=(1, 2), recipe=full, warmup=None)


def test_each_policy_stays_and_each_training_at_work_keeps_two_checkpoints(sweep):
    need = disk_needed(sweep, sweep.tasks, site_of(), SIZES, {})

    assert need.trainings == 3
    assert need.lasting == pytest.approx(4 * 18e9, rel=0.01)
    assert need.peak - need.lasting == pytest.approx(3 * 2 * 9e9 * 14)


def test_on_this_machine_as_many_trainings_run_at_once_as_there_are_slots_for(sweep):
    site = site_of(executor="local", slots=4, stages={"train": {"ranks_per_node": 2}})

    assert disk_needed(sweep, sweep.tasks, site, SIZES, {}).trainings == 2


def test_what_is_done_needs_no_more_room(sweep):
    assert disk_needed(sweep, [], site_of(), SIZES, {}) == Disk(0.0, 0.0, 0)
    pending = [task for task in sweep.tasks if task.stage == "evaluate"]
    assert disk_needed(sweep, pending, site_of(), SIZES, {}).trainings == 0


def test_models_of_unknown_size_are_named(sweep):
    need = disk_needed(sweep, sweep.tasks, site_of(), Sizes(), {})

    assert need.unknown == ("/models/policy",)
    assert str(need).endswith("(without /models/policy, of unknown size)")


def test_too_little_room_is_said():
    need = Disk(lasting=100e9, peak=400e9, trainings=2)

    assert shortage(need, 500 * 10**9) is None
    assert shortage(need, 200 * 10**9).startswith(
        "the disk may become full: 100.0 GB to be written, 400.0 GB at once while 2 tr"
    )
    assert shortage(need, 50 * 10**9).startswith("the disk has no room: ")

"""Whatever a recipe asks for, what lies ahead can be told: amounts, needs, cost, disk, jobs, words."""

from __future__ import annotations

import orjson
import pytest

from eva_hpc.config.model_size import Size, Sizes
from eva_hpc.config.site import Site
from eva_hpc.plan.cost import Measured, estimate
from eva_hpc.plan.describe import describe
from eva_hpc.plan.disk import disk_needed
from eva_hpc.plan.explain import changes, of_run
from eva_hpc.plan.jobs import make_arrays, make_jobs
from eva_hpc.plan.work import Slice, Workload
from tests.plan.options import CONTENT, OPTIONS

AXES = {"responses_per_prompt": [2, 6], "evolved_ratio": [0.5, 0.8]}
COUNT = 1000
SIZES = Sizes(
    {"/models/policy": Size(9e9, "its name"), "/models/reward": Size(27e9, "its name")},
    {"/data/prompts.jsonl": Size(COUNT, "lines"), "/data/heldout.jsonl": Size(100, "lines")},
)
ON_GPUS = ("generate", "score", "evolve", "rewrite", "response_logps", "answer", "judge", "train")
SITE = Site.model_validate(
    {
        "name": "h100",
        "executor": "slurm",
        "scale": "full",
        "stages": {stage: {"ranks_per_node": 8, "gpus_per_rank": 1} for stage in ON_GPUS},
    }
)


@pytest.fixture(scope="module", params=OPTIONS)
def plan(request, plan_of, full):
    """Two rounds of every option, of a small grid."""
    return plan_of(AXES, (1,), full, CONTENT, **{"rounds": 2, **OPTIONS[request.param]})


def test_every_stage_has_an_amount_and_no_stage_costs_nothing(plan):
    cost = estimate(plan, plan.tasks, SITE, SIZES, Measured())
    assert cost.unknown == ()
    assert all(stage.planned > 0 for stage in cost.stages)
    assert cost.planned <= cost.naive * (1 + 1e-9)
    work = Workload(plan, SIZES, {})
    assert all(work.amount(task) > 0 for task in plan.tasks)


def test_a_model_that_writes_or_reads_is_counted(plan):
    work = Workload(plan, SIZES, {})
    by_model = [task for task in plan.tasks if task.stage in ("generate", "answer", "train", "score", "response_logps")]
    by_model += [task for task in plan.tasks if task.stage in ("evolve", "rewrite") and task.parallel == "shards"]
    assert all(work.operations(task).flops > 0 for task in by_model)


def test_every_run_needs_a_part_of_every_nested_task_that_it_has(plan):
    needs = Workload(plan, SIZES, {}).needs()
    for task in plan.tasks:
        if task.identity.nested:
            asked = needs.get(task.id, {})
            assert set(asked) == set(task.runs), task.id
            nested = dict(task.identity.nested)
            whole = asked[task.runs[0]]
            for part in asked.values():
                whole = whole.joined(part)
            assert whole == Slice(nested["responses"], nested["fraction"]), "and together they need all of it"


def test_it_can_be_told_in_words_with_its_jobs_and_disk(plan):
    disk = disk_needed(plan, plan.tasks, SITE, SIZES, {})
    assert disk.lasting > 18e9
    assert make_arrays(plan, make_jobs(plan, plan.tasks, SITE), SITE)
    cost = estimate(plan, plan.tasks, SITE, SIZES, Measured())
    text = describe(plan, plan.tasks, SITE, cost=cost, lines=[str(disk)])
    assert all(task.stage in text for task in plan.tasks)


def test_it_can_be_compared_with_the_plan_without_the_option(plan, plan_of, full):
    plain = plan_of(AXES, (1,), full, CONTENT, rounds=2)
    run = plan.runs[0].name
    earlier = of_run(orjson.loads(plain.model_dump_json()), run)
    found = changes(plan, earlier, run)
    assert (found == {}) == ({task.id for task in plan.tasks_of(run)} <= plain.by_id.keys())


# ---------------------------------------------------------------------------- amounts


def amounts(plan_of, full, stage, **options):
    """What the tasks of a stage of one run have to do, in order."""
    plan = plan_of({"evolved_ratio": [0.8]}, (1,), full, CONTENT, **options)
    work = Workload(plan, SIZES, {})
    return [work.amount(task) for task in plan.tasks if task.stage == stage]


@pytest.mark.parametrize(
    ("creator", "evolved"),
    [
        ({}, 0.8 * COUNT),
        ({"creator__fraction": 0.5}, 0.8 * COUNT),  # twice as many are evolved, and no more of them used
        ({"creator__evolutions": 2}, 0.5 * COUNT),  # fewer are there than the ratio asks for
        ({"creator__count": 10}, 40),
        ({"creator__recheck": 0.5}, COUNT),
    ],
)
def test_as_many_evolved_prompts_are_answered_as_the_ratio_asks_for_and_there_are(plan_of, full, creator, evolved):
    base, answered = amounts(plan_of, full, "generate", warmup=None, **creator)
    assert (base, answered) == (COUNT * 6, evolved * 6)


def test_from_scratch_a_round_trains_on_the_pairs_of_all_rounds(plan_of, full):
    assert amounts(plan_of, full, "train", rounds=2, incremental=False) == [2 * COUNT, 4 * COUNT, 6 * COUNT]
    assert amounts(plan_of, full, "train", rounds=2) == [2 * COUNT] * 3


def test_a_number_of_steps_is_the_amount_of_a_training(plan_of, full):
    optimiser = {"loss": "dpo", "steps": 30, "batch_size": 16}
    assert amounts(plan_of, full, "train", optimiser=optimiser) == [480, 480]


def test_without_an_evolver_a_quarter_of_the_prompts_is_paired(plan_of, full):
    assert amounts(plan_of, full, "pair", creator__evolver="none") == [COUNT, COUNT / 4]


def test_a_rewriting_is_scored_with_what_it_was_made_from(plan_of, full):
    assert amounts(plan_of, full, "rewrite", rewriter="policy", warmup=None) == [COUNT]
    assert sorted(amounts(plan_of, full, "score", rewriter="policy", warmup=None)) == [COUNT * 2, COUNT * 0.8 * 6, COUNT * 6]

"""What a sweep will cost: shared and nested work counted once or by run, allocations charged, every number with its basis."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eva_hpc.config.errors import ConfigError
from eva_hpc.config.model_size import Size, Sizes
from eva_hpc.config.site import Site
from eva_hpc.plan.cost import (
    CORE_HOURS,
    GPU_HOURS,
    PEAK_FLOPS,
    SMALL_STAGE_S,
    START_UP_S,
    UTILISATION,
    Estimate,
    Measured,
    Rate,
    StageCost,
    check_budget,
    estimate,
    hours,
)
from eva_hpc.plan.work import INSTRUCTION_TOKENS, PROMPT_TOKENS, RESPONSE_SHARE, Slice, Workload

MODELS = {"/models/policy": Size(9e9, "safetensors headers"), "/models/reward": Size(27e9, "config.json")}
SIZES = Sizes(MODELS, {"/data/prompts.jsonl": Size(1000, "lines"), "/data/heldout.jsonl": Size(100, "lines")})
MANY = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
GPU = {"ranks_per_node": 8, "gpus_per_rank": 1}


def site_of(**changes):
    stages = dict.fromkeys(("generate", "score", "evolve", "answer", "judge"), GPU) | {"train": {"nodes": 2, **GPU}}
    return Site.model_validate({"name": "h100", "executor": "slurm", "scale": "full", "stages": stages} | changes)


@pytest.fixture(scope="module")
def sweep(plan_of, full):
    """k = 2 and k = 6 of one seed, without a warm-up."""
    return plan_of({"responses_per_prompt": [2, 6]}, seeds=(1,), recipe=full, warmup=None)


def cost_of(plan, pending=None, site=None, sizes=SIZES, measured=None):
    return estimate(plan, plan.tasks if pending is None else pending, site or site_of(), sizes, measured or Measured())


def stage(cost, name):
    return next(one for one in cost.stages if one.stage == name)


def test_training_takes_six_operations_per_parameter_and_token_and_two_for_the_reference(sweep, tasks_of):
    work = Workload(sweep, SIZES, {})
    train = tasks_of(sweep, "train")[0]
    operations = work.operations(train)

    length = PROMPT_TOKENS + RESPONSE_SHARE * 2048
    assert train.spec["optimiser"]["epochs"] == 2
    assert operations.flops == pytest.approx(9e9 * 1000 * 2 * length * (6 * 2 + 2))


def test_generation_scoring_and_evolving_take_two_operations_per_parameter_and_token(sweep, tasks_of):
    work = Workload(sweep, SIZES, {})
    base, *_ = tasks_of(sweep, "generate")
    length = RESPONSE_SHARE * 2048
    assert work.operations(base).flops == pytest.approx(2 * 9e9 * (1000 * 6 * length + 1000 * PROMPT_TOKENS))
    assert work.operations(base, Slice(2, 1.0)).flops == pytest.approx(2 * 9e9 * (1000 * 2 * length + 1000 * PROMPT_TOKENS))
    score = tasks_of(sweep, "score")[0]
    assert work.operations(score).flops == pytest.approx(2 * 27e9 * 1000 * 6 * (PROMPT_TOKENS + length))
    evolve = tasks_of(sweep, "evolve")[0]
    rewrites = 250 * evolve.spec["evolutions"]
    tokens = rewrites * (INSTRUCTION_TOKENS + PROMPT_TOKENS + RESPONSE_SHARE * 666)
    assert work.operations(evolve).flops == pytest.approx(2 * 9e9 * tokens)
    judge = tasks_of(sweep, "judge")[0]
    assert work.operations(judge).flops == pytest.approx(2 * 27e9 * 100 * (PROMPT_TOKENS + length))
    assert work.operations(tasks_of(sweep, "pair")[0]) is None


def test_the_whole_allocation_of_a_job_is_charged_for_each_of_its_stages(plan_of, full, tasks_of):
    plan = plan_of({"evolved_ratio": [0.8]}, seeds=(1,), recipe=full, warmup=None)
    cost = cost_of(plan)

    pairing = SMALL_STAGE_S / 3600 * 16
    assert stage(cost, "pair").planned == pytest.approx(pairing), "2 nodes of 8 GPUs wait while one process pairs"
    base, evolved = tasks_of(plan, "generate")
    work = Workload(plan, SIZES, {})
    speed = 8 * PEAK_FLOPS["h100"] * UTILISATION["generation (transformers)"]
    seconds = START_UP_S + (work.operations(base).flops + work.operations(evolved).flops) / speed
    assert base.runs == evolved.runs == (plan.runs[0].name,)
    assert stage(cost, "generate").planned == pytest.approx(seconds * 16 / 3600), "to evolve has started the engine before"


def test_an_engine_of_another_size_is_started_anew(plan_of, full):
    plan = plan_of({"evolved_ratio": [0.8]}, seeds=(1,), recipe=full, warmup=None)
    stages = site_of().model_dump()["stages"]
    smaller = site_of(stages=stages | {"evolve": GPU | {"ranks_per_node": 4}})
    together, apart = (stage(cost_of(plan, site=site), "generate").planned for site in (site_of(), smaller))
    assert apart == pytest.approx(together + START_UP_S * 16 / 3600), "a start for each"


def test_on_this_machine_a_stage_is_charged_for_what_it_has(plan_of, full):
    site = site_of(executor="local", slots=16)
    plan = plan_of({"evolved_ratio": [0.8]}, seeds=(1,), recipe=full, warmup=None)
    cost = cost_of(plan, site=site)

    assert stage(cost, "pair").planned == 0
    assert stage(cost, "train").planned > 0


def test_one_run_costs_the_same_with_and_without_sharing(plan_of, full):
    plan = plan_of({"evolved_ratio": [0.8]}, seeds=(1,), recipe=full)
    cost = cost_of(plan)

    assert cost.naive == pytest.approx(cost.planned)
    assert cost.done == 0


def test_naive_runs_take_their_own_number_of_responses_and_share_of_evolved_prompts(plan_of, full):
    axes = {"responses_per_prompt": [2, 6], "evolved_ratio": [0.0, 0.5, 1.0]}
    both = cost_of(plan_of(axes, seeds=(1,), recipe=full))
    alone = [
        cost_of(plan_of({"responses_per_prompt": [k], "evolved_ratio": [ratio]}, seeds=(1,), recipe=full)).planned
        for k in axes["responses_per_prompt"]
        for ratio in axes["evolved_ratio"]
    ]

    assert both.naive == pytest.approx(sum(alone))
    assert both.planned < both.naive


@given(st.lists(st.integers(2, 9), min_size=1, max_size=3, unique=True), st.sets(st.integers(0, 60)))
@MANY
def test_done_and_planned_make_the_whole_and_sharing_never_costs_more(plan_of, full, counts, done):
    plan = plan_of({"responses_per_prompt": counts}, seeds=(1, 2), recipe=full)
    site = site_of(executor="local", slots=16)
    pending = [task for index, task in enumerate(plan.tasks) if index not in done]
    cost = cost_of(plan, pending, site)

    assert cost.done + cost.planned == pytest.approx(cost_of(plan, site=site).planned)
    assert cost.planned <= cost.naive * (1 + 1e-9)
    assert sum(one.to_do for one in cost.stages) == len(pending)
    assert sum(one.separate for one in cost.stages) == plan.separate_stages


def test_what_was_measured_outranks_what_is_computed_and_scales_with_the_work(sweep, tasks_of):
    work = Workload(sweep, SIZES, {})
    base, *evolved = tasks_of(sweep, "generate")
    assert {work.kind(base)} == {work.kind(task) for task in evolved}
    cost = cost_of(sweep, site=site_of(executor="local", slots=16), measured=Measured({(work.kind(base), True): Rate(2.0, 7)}))

    assert stage(cost, "generate").planned == pytest.approx(2.0 * (1000 * 6 + 800 * 2 + 800 * 6) / 3600)
    assert stage(cost, "generate").naive == pytest.approx(2.0 * (1800 * 2 + 1800 * 6) / 3600)
    assert stage(cost, "generate").basis == "measured (7 in the store)"


def test_a_measurement_without_gpus_says_nothing_about_gpus(sweep, tasks_of):
    kind = Workload(sweep, SIZES, {}).kind(tasks_of(sweep, "train")[0])
    cost = cost_of(sweep, measured=Measured({(kind, False): Rate(1000.0, 1)}))

    assert stage(cost, "train").basis.startswith("computed: 9B parameters by safetensors headers, training at 30% of h100's")


def test_without_gpus_only_measurements_count(plan_of, slurm_site, tasks_of):
    plan = plan_of({"responses_per_prompt": [2, 6]}, seeds=(1,))
    site = slurm_site.model_copy(update={"stages": {}})
    unknown = cost_of(plan, site=site)
    assert unknown.unit == CORE_HOURS
    assert set(unknown.unknown) == {task.stage for task in plan.tasks}
    assert unknown.planned == 0

    pair = tasks_of(plan, "pair")[0]
    known = Measured({(Workload(plan, SIZES, {}).kind(pair), False): Rate(0.5, 3)})
    cost = cost_of(plan, site=site, measured=known)
    pairs = len(tasks_of(plan, "pair"))
    assert stage(cost, "pair").planned == pytest.approx(0.5 * 512 * pairs * 2 / 3600), "two cores of the job"


def test_finished_prompts_are_counted_instead_of_guessed(sweep, tasks_of):
    prompts = tasks_of(sweep, "prompts")[0]
    few = cost_of(sweep, measured=Measured({}, {prompts.id: 10}))

    assert few.planned < cost_of(sweep).planned
    assert Workload(sweep, SIZES, {prompts.id: 10}).amount(tasks_of(sweep, "generate")[0]) == 60


def test_assumptions_are_said(sweep):
    cost = cost_of(sweep, site=site_of(name="mycluster"), sizes=Sizes(MODELS))

    said = "\n".join(cost.notes)
    assert "responses of 30% of max_new_tokens" in said
    assert "/data/prompts.jsonl has 10,000 prompts" in said
    assert "what GPUs 'mycluster' means is not known (site.slurm.gpu_type); taken as a100" in said
    assert cost_of(sweep, site=site_of(name="mycluster", slurm={"gpu_type": "H200"})).notes[1:] == ()


def test_a_budget_is_kept_or_refused_with_the_numbers_behind_it(sweep):
    cost = cost_of(sweep)
    assert cost.unit == GPU_HOURS
    check_budget(cost, cost.planned + 1)

    with pytest.raises(
        ConfigError, match=rf"--max-gpu-hours: found 1; .* about {hours(cost.planned)} GPU hours, most of it .*comput"
    ):
        check_budget(cost, 1)


def test_a_budget_is_refused_if_the_cost_is_not_known(sweep):
    cost = cost_of(sweep, sizes=Sizes({"/models/policy": Size(9e9, "its name")}))

    assert cost.unknown == ("score", "judge")
    with pytest.raises(ConfigError, match=r"the cost of score, judge is not known .*the size of /models/reward is not"):
        check_budget(cost, 1e9)


def test_without_gpus_there_is_nothing_to_refuse():
    stages = (StageCost("train", 1, 1, 1, None, None, None, "not known"),)
    check_budget(Estimate(CORE_HOURS, stages, ()), 1)


def test_an_estimate_as_json_has_its_totals(sweep):
    cost = cost_of(sweep)
    written = cost.to_json()

    assert written["planned"] == pytest.approx(sum(one["planned"] for one in written["stages"]))
    assert written["stages"][0]["basis"]


@pytest.mark.parametrize(("value", "text"), [(None, "?"), (0, "0.0"), (0.0312, "0.031"), (4.26, "4.3"), (1234.5, "1,234")])
def test_hours_for_people(value, text):
    assert hours(value) == text

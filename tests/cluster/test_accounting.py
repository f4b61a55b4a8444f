"""What a sweep has cost, from ledgers made by hand: every second of an allocation is charged once."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import orjson
import pytest

from eva_hpc.cluster.accounting import OVERHEAD, SHARED, account, markdown, measured, summary, table, write_account
from eva_hpc.cluster.ledger import Ledger
from eva_hpc.config.model_size import Sizes
from eva_hpc.config.recipe import Recipe
from eva_hpc.config.sweep import Experiment, Sweep
from eva_hpc.plan.cost import CORE_HOURS, GPU_HOURS, Measured, Rate
from eva_hpc.plan.plan import make_plan
from eva_hpc.plan.work import Workload
from eva_hpc.store.artifacts import Store
from eva_hpc.store.keys import Identity
from tests.recipes import LAB

START = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
GPUS = {"nodes": 2, "cpus_per_node": 4, "gpus_per_node": 8}
CPUS = {"nodes": 2, "cpus_per_node": 4, "gpus_per_node": 0}


@pytest.fixture(scope="module")
def plan():
    """Two runs, k = 2 and k = 6, of one seed."""
    points = [({"responses_per_prompt": k}, Recipe.model_validate(LAB | {"responses_per_prompt": k})) for k in (2, 6)]
    sweep = Sweep(name="test", recipe="recipe.yaml", axes={"responses_per_prompt": [2, 6]}, seeds=(1,))
    return make_plan(Experiment(sweep=sweep, recipe=Recipe.model_validate(LAB), points=tuple(points)))


@pytest.fixture
def write(tmp_path, plan):
    """A function that writes a ledger of (hours since the start, event, fields) and accounts for it."""

    def written(*lines):
        (tmp_path / "ledger").mkdir()
        (tmp_path / "plans").mkdir()
        (tmp_path / "plans" / "one.json").write_text(plan.model_dump_json())
        with (tmp_path / "ledger" / "all.jsonl").open("wb") as file:
            for time, event, fields in lines:
                when = (START + timedelta(hours=time)).isoformat(timespec="milliseconds")
                line = {"time": when, "event": event, **fields}
                file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
        return account(tmp_path)

    return written


def submitted(plan, tasks, shape=GPUS, job="7"):
    ids = [task.id for task in tasks]
    asked = {"token": f"t{job}", "array": "runs-1", "jobs": [{"name": "one", "tasks": ids}], "shape": shape, "after": []}
    return (0, "submitting", asked), (0, "submitted", {"token": f"t{job}", "job": job, "count": 1})


def attempt(number, state, elapsed, gpus=16, job="7", source="sacct"):
    fields = {"job": job, "attempt": number, "state": state, "elapsed_s": elapsed * 3600, "gpus": gpus, "source": source}
    return (90 + number, "attempt", fields | {"gpu_seconds": elapsed * 3600 * gpus})


def own_tasks(plan, run=0):
    """The tasks that one run alone needs."""
    return [task for task in plan.tasks if task.runs == (plan.runs[run].name,)]


def stage(cost, name):
    hours = cost.stages[name]
    return [round(value, 6) for value in (hours.committed, hours.saved, hours.wasted, hours.waiting)]


def test_a_jobs_gpu_hours_are_divided_by_the_time_of_each_stage_and_the_rest_is_start_up(write, plan):
    pair, train = (next(task for task in own_tasks(plan) if task.stage == name) for name in ("pair", "train"))
    cost = write(
        *submitted(plan, [pair, train]),
        (1.0, "begun", {"job": "7", "restart": 0}),
        (1.25, "started", {"task": pair.id, "job": "7", "restart": 0}),
        (1.5, "done", {"task": pair.id, "job": "7", "seconds": 900, "gpus": 0}),
        (1.5, "started", {"task": train.id, "job": "7", "restart": 0}),
        (3.5, "done", {"task": train.id, "job": "7", "seconds": 7200, "gpus": 16}),
        attempt(0, "COMPLETED", 3.0),
    )

    assert cost.unit == GPU_HOURS
    assert stage(cost, "pair") == [4.0, 0, 0, 0]
    assert stage(cost, "train") == [32.0, 0, 0, 0]
    assert stage(cost, OVERHEAD) == [0, 0, 0, 12.0]
    assert cost.total.total == pytest.approx(48.0)
    assert cost.runs[plan.runs[0].name].total == pytest.approx(48.0)
    assert cost.jobs["7"].total == pytest.approx(48.0)


def test_requeued_twice_then_done(write, plan):
    train = next(task for task in own_tasks(plan) if task.stage == "train")
    lines = [*submitted(plan, [train])]
    for number in range(3):
        end = "done" if number == 2 else "requeued"
        lines += [
            (10 * number + 1.0, "begun", {"job": "7", "restart": number}),
            (10 * number + 1.5, "started", {"task": train.id, "job": "7", "restart": number}),
            (10 * number + 3.5, end, {"task": train.id, "job": "7", "cause": "timeout"}),
        ]
    cost = write(
        *lines,
        attempt(0, "REQUEUED", 2.75),
        attempt(1, "REQUEUED", 2.75),
        attempt(2, "COMPLETED", 2.5),
        attempt(2, "COMPLETED", 2.5),
    )

    assert cost.attempts == 3
    assert stage(cost, "train") == [32.0, 64.0, 0, 0]
    assert stage(cost, OVERHEAD) == [0, 0, 0, 32.0]
    assert cost.total.total == pytest.approx(8.0 * 16)


def test_a_failed_attempt_is_wasted_whole_and_the_job_submitted_again_is_not(write, plan):
    train = next(task for task in own_tasks(plan) if task.stage == "train")
    cost = write(
        *submitted(plan, [train], job="7"),
        (1.0, "begun", {"job": "7", "restart": 0}),
        (1.5, "started", {"task": train.id, "job": "7", "restart": 0}),
        (2.0, "retried", {"task": train.id, "job": "7", "cause": "killed"}),
        (2.0, "started", {"task": train.id, "job": "7", "restart": 0}),
        (3.0, "failed", {"task": train.id, "job": "7", "cause": "killed"}),
        *submitted(plan, [train], job="8"),
        (5.0, "begun", {"job": "8", "restart": 0}),
        (5.0, "started", {"task": train.id, "job": "8", "restart": 0}),
        (6.0, "done", {"task": train.id, "job": "8", "seconds": 3600, "gpus": 16}),
        attempt(0, "FAILED", 2.0, job="7"),
        attempt(0, "COMPLETED", 1.0, job="8"),
    )

    assert stage(cost, "train") == [16.0, 0, 24.0, 0]
    assert stage(cost, OVERHEAD) == [0, 0, 8.0, 0]
    assert (cost.jobs["7"].wasted, cost.jobs["8"].wasted) == (pytest.approx(32.0), 0)


def test_a_stage_that_was_killed_is_charged_to_the_end_of_its_attempt(write, plan):
    train = next(task for task in own_tasks(plan) if task.stage == "train")
    cost = write(
        *submitted(plan, [train]),
        (1.0, "begun", {"job": "7", "restart": 0}),
        (1.25, "started", {"task": train.id, "job": "7", "restart": 0}),
        attempt(0, "NODE_FAIL", 4.25),
    )

    assert stage(cost, "train") == [0, 0, 64.0, 0]
    assert stage(cost, OVERHEAD) == [0, 0, 4.0, 0]


def test_without_accounting_the_drivers_own_words_count(write, plan):
    train = next(task for task in own_tasks(plan) if task.stage == "train")
    cost = write(
        *submitted(plan, [train], CPUS),
        (1.0, "begun", {"job": "7", "restart": 0}),
        (1.5, "started", {"task": train.id, "job": "7", "restart": 0}),
        (2.0, "done", {"task": train.id, "job": "7", "seconds": 1800, "gpus": 0}),
    )

    assert cost.unit == CORE_HOURS
    assert stage(cost, "train") == [4.0, 0, 0, 0]
    assert stage(cost, OVERHEAD) == [0, 0, 0, 4.0]


def test_accounting_outranks_the_ledgers_own_estimate_whichever_came_first(write, plan):
    train = next(task for task in own_tasks(plan) if task.stage == "train")
    cost = write(*submitted(plan, [train]), attempt(0, "COMPLETED", 3.0), attempt(0, "COMPLETED", 1.0, source="ledger"))

    assert cost.total.total == pytest.approx(48.0)


def test_a_job_that_never_began_its_work_is_wasted_if_it_failed(write, plan):
    train = next(task for task in own_tasks(plan) if task.stage == "train")
    cost = write(*submitted(plan, [train]), attempt(0, "FAILED", 0.5))

    assert stage(cost, OVERHEAD) == [0, 0, 8.0, 0]


@pytest.mark.parametrize("state", ["COMPLETED", "UNKNOWN"])
def test_a_job_that_found_everything_done_has_only_waited(write, plan, state):
    train = next(task for task in own_tasks(plan) if task.stage == "train")
    cost = write(*submitted(plan, [train]), (1.0, "begun", {"job": "7", "restart": 0}), attempt(0, state, 0.5))

    assert stage(cost, OVERHEAD) == [0, 0, 0, 8.0]


def test_steps_longer_than_their_attempt_are_cut_to_it(write, plan):
    pair, train = (next(task for task in own_tasks(plan) if task.stage == name) for name in ("pair", "train"))
    cost = write(
        *submitted(plan, [pair, train]),
        (1.0, "started", {"task": pair.id, "job": "7", "restart": 0}),
        (2.0, "done", {"task": pair.id, "job": "7"}),
        (2.0, "started", {"task": train.id, "job": "7", "restart": 0}),
        (5.0, "done", {"task": train.id, "job": "7"}),
        attempt(0, "COMPLETED", 2.0),
    )

    assert (stage(cost, "pair"), stage(cost, "train")) == ([8.0, 0, 0, 0], [24.0, 0, 0, 0])
    assert cost.total.total == pytest.approx(32.0)


def test_shared_stages_are_split_evenly_and_what_sharing_saved_counts_each_runs_own_responses(write, plan):
    shared = next(task for task in plan.tasks if task.stage == "generate" and task.part == "round 1" and len(task.runs) == 2)
    cost = write(
        *submitted(plan, [shared]),
        (1.0, "started", {"task": shared.id, "job": "7", "restart": 0}),
        (4.0, "done", {"task": shared.id, "job": "7"}),
        attempt(0, "COMPLETED", 3.0),
    )

    assert cost.runs[SHARED].total == pytest.approx(48.0)
    assert cost.with_shares == {run.name: pytest.approx(24.0) for run in plan.runs}
    assert cost.saved_by_sharing == pytest.approx(16.0), "k = 2 would have taken a third of k = 6"


def test_on_this_machine_tasks_run_side_by_side_and_processes_are_counted(write, plan):
    pair, train = (next(task for task in own_tasks(plan) if task.stage == name) for name in ("pair", "train"))
    cost = write(
        (1.0, "started", {"task": pair.id}),
        (1.0, "started", {"task": train.id}),
        (1.5, "failed", {"task": pair.id, "reason": "no"}),
        (2.0, "stopped", {"task": train.id, "saved": True}),
        (3.0, "started", {"task": train.id}),
        (4.0, "done", {"task": train.id, "seconds": 3600, "processes": 2}),
    )

    assert cost.unit == CORE_HOURS
    assert stage(cost, "pair") == [0, 0, 0.5, 0]
    assert stage(cost, "train") == [2.0, 1.0, 0, 0]


def test_the_files_say_planned_actual_wasted_and_saved(write, plan, tmp_path):
    train = next(task for task in own_tasks(plan) if task.stage == "train")
    cost = write(
        (0, "launched", {"estimate": {"planned": 200.0, "naive": 300.0}}),
        *submitted(plan, [train]),
        (1.0, "started", {"task": train.id, "job": "7", "restart": 0}),
        (11.0, "done", {"task": train.id, "job": "7"}),
        attempt(0, "COMPLETED", 10.0),
        (99, "launched", {"estimate": {"planned": 1.0, "naive": 300.0}}),
    )

    assert summary(cost) == "GPU hours: planned 200, actual 160, of these wasted 0.0; saved by sharing 0.0"
    assert table(cost).splitlines()[-1].split() == ["all", "160", "0.0", "0.0", "0.0", "160"]
    json_file, markdown_file = write_account(tmp_path, cost)
    read = orjson.loads(json_file.read_bytes())
    assert (read["planned"], read["naive"], read["actual"]["total"]) == (200.0, 300.0, 160.0)
    assert read["stages"]["train"]["committed"] == read["jobs"]["7"]["total"] == 160.0
    assert markdown_file.read_text() == markdown(cost)
    assert f"| {plan.runs[0].name} | 160 | 0.0 | 160 |" in " ".join(markdown(cost).split())


def test_an_empty_ledger_has_cost_nothing(tmp_path):
    Ledger(tmp_path)

    assert account(tmp_path).total.total == 0
    assert "actual 0.0" in summary(account(tmp_path))


# ---------------------------------------------------------------------------- what the store tells


def commit(store, task, seconds, read, written, gpus=None, processes=2, inputs=None):
    store.work(task.identity).mkdir(parents=True)
    fields = {"stage": task.stage, "spec": task.spec, "inputs": inputs or {}, "seconds": seconds, "processes": processes}
    records = {"in": read, "out": written, "set_aside": {}}
    store.commit(task.identity, fields | {"records": records} | ({"gpus": gpus} if gpus is not None else {}))


def test_rates_are_seconds_of_a_process_or_gpu_for_one_unit_of_the_same_work(plan, tmp_path):
    store = Store(tmp_path)
    start = next(task for task in plan.tasks if task.stage == "start_policy")
    first, second = [task for task in plan.tasks if task.stage == "generate"][:2]
    policy = {"policy": {"artifact": start.id}}
    commit(store, start, 60.0, 800, 1)
    commit(store, first, 30.0, 10, 10, inputs=policy)
    commit(store, second, 30.0, 20, 20, gpus=4, inputs=policy)

    found = measured(store, plan)

    amounts = [10 * first.spec["responses"], 20 * second.spec["responses"]]
    assert sorted(rate.seconds for rate in found.rates.values()) == sorted([120.0, 60.0 / amounts[0], 120.0 / amounts[1]])
    assert {on_gpus for _, on_gpus in found.rates} == {True, False}


def test_the_work_of_another_model_is_no_measure(plan, tmp_path):
    store = Store(tmp_path)
    start, generate = (next(task for task in plan.tasks if task.stage == name) for name in ("start_policy", "generate"))
    other = start.model_copy(
        update={"identity": Identity("start_policy", "other"), "spec": {**start.spec, "fingerprint": "another"}}
    )
    commit(store, other, 60.0, 800, 1)
    commit(store, generate, 30.0, 10, 10, inputs={"policy": {"artifact": other.id}})

    own = measured(store, plan).rates

    assert len(own) == 2
    assert (Workload(plan, Sizes(), {}).kind(generate), False) not in own


def test_finished_prompts_are_counted_and_an_empty_store_tells_nothing(plan, tmp_path):
    store = Store(tmp_path)
    assert measured(store, plan) == Measured()
    prompts = next(task for task in plan.tasks if task.stage == "prompts")
    commit(store, prompts, 1.0, 300, 250)

    found = measured(store, plan)

    assert found.written == {prompts.id: 250}
    assert list(found.rates.values()) == [Rate(2.0 / 300, 1)]

"""What judges will be asked is told before anything starts."""

from __future__ import annotations

import pytest

from eva_hpc.plan.jobs import make_arrays, make_jobs
from eva_hpc.plan.judge_calls import judge_calls

FILES = {
    "alpaca_eval": {"questions": "/q/alpaca", "prompt": "/p/alpaca", "difficulty": "/d", "gamed": "/g"},
    "mt_bench": {"questions": "/q/mt", "prompt": "/p/mt", "reference": "/r/mt"},
}
CONTENT = {path: path for files in FILES.values() for path in files.values()}


def judged(full, judge=None, **alpaca):
    """A full-scale recipe with two judged benchmarks."""
    benchmarks = {
        "alpaca_eval": {"kind": "alpaca_eval", "files": FILES["alpaca_eval"], **alpaca},
        "mt_bench": {"kind": "mt_bench", "files": FILES["mt_bench"]},
    }
    return {**full, "judge": {"model": "judge-1", **(judge or {})}, "benchmarks": benchmarks}


@pytest.fixture
def judged_plan(plan_of, full):
    content = {**CONTENT, "/models/policy": "p", "/data/prompts.jsonl": "d", "/models/reward": "r"}

    def make(judge=None, seeds=(1, 2), content=content, **alpaca):
        return plan_of({"responses_per_prompt": [2, 4]}, seeds, judged(full, judge, **alpaca), content)

    return make


def test_requests_and_tokens_of_all_runs(judged_plan):
    plan = judged_plan()
    (calls,) = judge_calls(plan.tasks, plan.tasks)
    assert calls.requests == 4 * (805 + 160)
    assert calls.price is None
    assert "judge judge-1: about 3,860 requests" in str(calls)


def test_repeats_both_orders_and_limits_count(judged_plan):
    plan = judged_plan({"repeats": 3, "price": {"input": 2.0, "output": 8.0}}, both_orders=True, limit=10)
    (calls,) = judge_calls(plan.tasks, plan.tasks)
    assert calls.requests == 4 * 3 * (2 * 10 + 160)
    expected = (calls.prompt_tokens * 2.0 + calls.completion_tokens * 8.0) / 1e6
    assert calls.price == pytest.approx(expected)
    assert "at a price of about" in str(calls)


def test_what_is_done_is_not_asked_again(judged_plan):
    plan = judged_plan()
    pending = [task for task in plan.tasks if task.stage != "ask_judge"]
    assert judge_calls(plan.tasks, pending) == []


def test_another_judge_changes_judgments_and_not_answers(judged_plan):
    def keys(plan, *stages):
        return {task.id for task in plan.tasks if task.stage in stages}

    one, other = judged_plan(), judged_plan({"model": "judge-2"})
    faster = judged_plan(
        {"concurrency": 99, "base_url": "http://x/v1", "timeout_s": 5.0, "price": {"input": 1.0, "output": 1.0}}
    )
    assert keys(one, "answer", "judged_questions") == keys(other, "answer", "judged_questions")
    assert not keys(one, "ask_judge", "judged_score") & keys(other, "ask_judge", "judged_score")
    assert keys(one, "ask_judge", "judged_score") == keys(faster, "ask_judge", "judged_score")


@pytest.mark.parametrize(
    ("path", "changed"),
    [
        ("/q/mt", {"judged_questions", "answer", "ask_judge", "judged_score"}),
        ("/p/mt", {"ask_judge", "judged_score"}),
        ("/r/mt", {"ask_judge", "judged_score"}),
        ("/g", {"judged_score"}),
    ],
)
def test_a_file_of_other_content_changes_what_reads_it(judged_plan, path, changed):
    before = judged_plan()
    after = judged_plan(
        content={**CONTENT, path: "another", "/models/policy": "p", "/data/prompts.jsonl": "d", "/models/reward": "r"}
    )
    new = {task.stage for task in after.tasks if task.id not in before.by_id}
    assert new == changed


def test_judges_are_asked_by_jobs_without_gpus(judged_plan, slurm_site):
    plan = judged_plan()
    arrays = make_arrays(plan, make_jobs(plan, plan.tasks, slurm_site), slurm_site)
    asking = [array for array in arrays if any(name.startswith("ask_judge") for job in array.jobs for name in job.tasks)]
    assert asking
    assert {array.shape.gpus_per_node for array in asking} == {0}


def test_answers_of_mt_bench_have_the_temperatures_of_its_categories(judged_plan, tasks_of):
    specs = [task.spec for task in tasks_of(judged_plan(), "answer")]
    by_limit = {spec["generation"]["max_new_tokens"]: spec for spec in specs}
    assert by_limit[1024]["temperatures"]["math"] == 0.0
    assert by_limit[1024]["temperatures"]["stem"] == 0.1
    assert by_limit[2048]["temperatures"] == {}
    assert by_limit[2048]["generation"]["temperature"] == 0.7

"""The state of a sweep from hand-made files and answers of Slurm."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from eva_hpc.cluster.job_states import Phase
from eva_hpc.cluster.sweep_status import RunState, SweepStatus, status_of
from tests.commands.hand_made import RUNS, HandMade, attempt, plan


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HandMade:
    return HandMade(tmp_path, plan()).answer(monkeypatch)


def status(sweep: HandMade) -> SweepStatus:
    found = status_of(sweep.results)
    assert found is not None
    return found


def states(sweep: HandMade) -> list[RunState]:
    return [run.state for run in status(sweep).runs]


def test_a_sweep_that_was_never_launched_has_no_status(tmp_path: Path) -> None:
    assert status_of(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_what_is_committed_is_done_and_asks_slurm_nothing(sweep: HandMade) -> None:
    for task in sweep.plan.tasks:
        sweep.commit(task)

    assert states(sweep) == [RunState.DONE] * 4
    assert status(sweep).stages_done == len(sweep.plan.tasks)
    assert sweep.calls == []


def test_what_only_finished_runs_needed_counts_as_done_without_being_there(sweep: HandMade) -> None:
    for run in sweep.plan.runs:
        for identity in run.evaluations.values():
            sweep.commit(sweep.plan.provider(identity))

    assert status(sweep).stages_done == len(sweep.plan.tasks)


def test_a_larger_artifact_of_another_sweep_is_the_smaller_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = plan(values=(2,), seeds=(1,), warmup=None), plan(values=(6,), seeds=(1,), warmup=None)
    sweep = HandMade(tmp_path, small).answer(monkeypatch)
    families = {task.identity.family for task in small.tasks if task.identity.nested}
    larger = next(task for task in large.tasks if task.identity.family in families)
    sweep.commit(larger)

    assert larger.id not in small.by_id
    assert status(sweep).stages_done == 1


def test_runs_wait_for_shared_work_that_is_running(sweep: HandMade) -> None:
    jobs = sweep.submit_all()
    first = sweep.shared()[0]
    sweep.event("started", task=first.id, job=jobs["shared"], name="shared-1", nodes="node1", restart=0)
    sweep.in_queue(jobs["shared"], "RUNNING")
    for run in RUNS:
        sweep.in_queue(jobs[run], "PENDING", "Dependency")

    found = status(sweep)
    assert {run.state for run in found.runs} == {RunState.WAITING}
    assert found.runs[0].why == "for shared-1, job 10 (running)"
    (shared,) = found.shared
    assert (shared.phase, shared.task, shared.job) == (Phase.RUNNING, first.id, "10")
    assert [wait.jobs for wait in found.waits] == [4]
    assert sweep.calls.count("squeue") == 1
    assert sweep.calls.count("sacct") <= 1


def test_a_running_run_says_which_stage_it_is_at(sweep: HandMade) -> None:
    jobs = sweep.submit_all()
    for task in sweep.shared():
        sweep.do(task, jobs["shared"])
    own = sweep.own(RUNS[0])
    sweep.do(own[0], jobs[RUNS[0]])
    sweep.event("started", task=own[1].id, job=jobs[RUNS[0]], name=RUNS[0], nodes="node1", restart=0)
    sweep.in_queue(jobs[RUNS[0]], "RUNNING")
    for run in RUNS[1:]:
        sweep.in_queue(jobs[run], "PENDING", "Priority")

    found = status(sweep)
    assert [run.state for run in found.runs] == [RunState.RUNNING] + [RunState.WAITING] * 3
    assert found.runs[0].task == own[1].id
    assert found.runs[0].done == found.runs[0].stages - len(own) + 1
    assert found.seconds_left is not None
    assert found.seconds_left > 0


@pytest.mark.parametrize("reason", ["PartitionTimeLimit", "DependencyNeverSatisfied", "JobHeldUser"])
def test_a_job_that_waits_for_what_never_comes_holds_its_run(sweep: HandMade, reason: str) -> None:
    jobs = sweep.submit_all()
    for task in sweep.shared():
        sweep.do(task, jobs["shared"])
    sweep.in_queue(jobs[RUNS[0]], "PENDING", reason)

    found = status(sweep)
    assert found.runs[0].state is RunState.HELD
    assert reason in found.runs[0].why
    assert found.waits[0].reason.is_stuck


def test_runs_behind_a_canary_that_failed_say_why_they_are_held(sweep: HandMade) -> None:
    jobs = sweep.submit_all()
    for task in sweep.shared():
        sweep.do(task, jobs["shared"])
    for run in RUNS:
        sweep.in_queue(jobs[run], "PENDING", "DependencyNeverSatisfied")

    found = status(sweep)
    assert found.counts == {RunState.HELD: 4}
    assert found.runs[0].why.startswith("the job that went ahead of it has failed")


def test_a_failure_has_cause_evidence_log_and_what_happens_next(sweep: HandMade) -> None:
    jobs = sweep.submit_all()
    for task in sweep.shared():
        sweep.do(task, jobs["shared"])
    task = sweep.own(RUNS[1])[0]
    sweep.event("started", task=task.id, job=jobs[RUNS[1]], name=RUNS[1], nodes="node1", restart=0)
    sweep.event("failed", task=task.id, job=jobs[RUNS[1]], cause="code_or_data", reason="ValueError: no\nmore")
    for run in RUNS:
        if run != RUNS[1]:
            sweep.in_queue(jobs[run], "PENDING", "Priority")

    found = status(sweep)
    assert found.runs[1].state is RunState.FAILED
    (failure,) = found.failures
    assert (failure.task, failure.runs, failure.cause, failure.evidence) == (
        task.id,
        (RUNS[1],),
        "code_or_data",
        "ValueError: no",
    )
    assert failure.log.parent.name == RUNS[1]
    assert "needs a change" in failure.next
    assert not failure.pending


def test_a_failure_that_another_job_tries_again_is_pending(sweep: HandMade) -> None:
    jobs = sweep.submit_all()
    for task in sweep.shared():
        sweep.do(task, jobs["shared"])
    own = sweep.own(RUNS[0])
    sweep.event("started", task=own[0].id, job=jobs[RUNS[0]], name=RUNS[0], nodes="node1", restart=0)
    decision = {
        "cause": "node_failure",
        "decision": "resubmit",
        "evidence": "job 20_0 ended, Slurm says NODE_FAIL",
        "change": {},
    }
    sweep.event("failed", task=own[0].id, job=jobs[RUNS[0]], cause="node_failure", reason="node1 died")
    sweep.event("decision", job=jobs[RUNS[0]], tasks=[task.id for task in own], **decision)
    (again,) = sweep.submit("30", {RUNS[0]: own})
    sweep.in_queue(again, "PENDING", "Resources")

    found = status(sweep)
    assert found.runs[0].state is RunState.WAITING
    failure = next(one for one in found.failures if one.runs == (RUNS[0],))
    assert failure.pending
    assert "job 30" in failure.next
    assert found.retries == {"node_failure": 1}


def test_what_follows_from_a_shared_failure_is_told_once(sweep: HandMade) -> None:
    jobs = sweep.submit_all()
    shared = sweep.shared()
    sweep.event("failed", task=shared[0].id, job=jobs["shared"], cause="cuda_oom", reason="CUDA out of memory")
    for run in RUNS:
        reason = "it needs what is not there"
        sweep.event("failed", task=sweep.own(run)[0].id, job=jobs[run], cause="missing_input", reason=reason)

    found = status(sweep)
    assert found.counts == {RunState.FAILED: 4}
    assert [failure.task for failure in found.failures] == [shared[0].id], "not what misses its work"
    assert len(found.failures[0].runs) > 1


def test_a_job_that_is_gone_without_a_word_has_failed_as_accounting_says(sweep: HandMade) -> None:
    jobs = sweep.submit_all()
    for task in sweep.shared():
        sweep.do(task, jobs["shared"])
    sweep.accounts = {jobs[RUNS[0]]: [attempt("OUT_OF_MEMORY")], jobs[RUNS[1]]: [attempt("CANCELLED")]}

    found = status(sweep)
    assert [run.state for run in found.runs] == [RunState.FAILED, RunState.CANCELLED, RunState.FAILED, RunState.FAILED]
    assert {failure.job: failure.cause for failure in found.failures} == {"20_0": "host_oom", "20_2": "lost", "20_3": "lost"}


def test_jobs_cancelled_by_us_are_cancelled_runs_even_without_accounting(sweep: HandMade) -> None:
    jobs = sweep.submit_all()
    for task in sweep.shared():
        sweep.do(task, jobs["shared"])
    sweep.event("cancelled", jobs=[jobs[run] for run in RUNS])
    sweep.accounts = None

    assert states(sweep) == [RunState.CANCELLED] * 4
    assert status(sweep).failures == ()


def test_when_slurm_is_away_the_files_are_believed_and_it_says_so(sweep: HandMade) -> None:
    jobs = sweep.submit_all()
    for task in sweep.shared():
        sweep.do(task, jobs["shared"])
    task = sweep.own(RUNS[0])[0]
    sweep.event("begun", job=jobs[RUNS[0]], name=RUNS[0], nodes="node1", restart=0, token="20")
    sweep.event("started", task=task.id, job=jobs[RUNS[0]], name=RUNS[0], nodes="node1", restart=0)
    sweep.event("failed", task=sweep.own(RUNS[1])[0].id, job=jobs[RUNS[1]], cause="code_or_data", reason="no")
    sweep.away = True

    found = status(sweep)
    assert [run.state for run in found.runs] == [RunState.RUNNING, RunState.FAILED, RunState.WAITING, RunState.WAITING]
    assert "Slurm does not answer" in found.notes[0]
    assert sweep.calls == ["squeue"]


def test_what_was_committed_while_slurm_was_asked_is_done_and_no_failure(
    sweep: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = sweep.submit_all()
    for task in sweep.plan.tasks:
        if task.runs != (RUNS[3],):
            sweep.do(task, jobs["shared"])
    from eva_hpc.cluster import queue

    def ends_just_now(jobs: object, **_: object) -> dict[str, queue.QueueEntry]:
        for task in sweep.own(RUNS[3]):
            sweep.commit(task)
        return {}

    monkeypatch.setattr(queue, "squeue", ends_just_now)

    found = status(sweep)
    assert found.counts == {RunState.DONE: 4}
    assert found.failures == ()


def test_gpu_hours_count_every_attempt_from_accounting_else_from_the_ledger(sweep: HandMade) -> None:
    jobs = sweep.submit_all(gpus=8)
    for task in sweep.shared():
        sweep.do(task, jobs["shared"])
    fields = {"name": RUNS[0], "state": "NODE_FAIL", "exit": 0, "nodes": ["node3"], "elapsed_s": 1800, "gpus": 8}
    sweep.event("attempt", job=jobs[RUNS[0]], attempt=0, **fields, gpu_seconds=14400, cause="node_failure", source="sacct")
    sweep.accounts = {jobs[RUNS[1]]: [attempt("PREEMPTED", 3600, 8), attempt("RUNNING", 1800, 8)]}
    sweep.in_queue(jobs[RUNS[1]], "RUNNING")

    found = status(sweep)
    assert found.gpu_hours == pytest.approx(4 + 8 + 4)
    assert found.bad_nodes == ("node3",)


def test_requeues_are_counted_by_what_slurm_tells_the_driver(sweep: HandMade) -> None:
    jobs = sweep.submit_all()
    for restart in (0, 1, 2):
        sweep.event("begun", job=jobs[RUNS[0]], name=RUNS[0], nodes="node1", restart=restart, token="20")

    assert status(sweep).requeues == 2


def test_without_slurm_failed_and_interrupted_work_of_this_machine_is_told_apart(sweep: HandMade) -> None:
    for task in sweep.shared():
        sweep.do(task)
    sweep.event("started", task=sweep.own(RUNS[0])[0].id, runs=1)
    sweep.event("started", task=sweep.own(RUNS[1])[0].id, runs=1)
    sweep.event("failed", task=sweep.own(RUNS[1])[0].id, reason="ValueError: no")

    found = status(sweep)
    assert [run.state for run in found.runs] == [RunState.OPEN, RunState.FAILED, RunState.OPEN, RunState.OPEN]
    assert "interrupted" in found.runs[0].why
    assert sweep.calls == []


def test_work_of_a_living_process_of_this_machine_is_running(sweep: HandMade) -> None:
    from eva_hpc.cluster.owners import this_process

    for task in sweep.shared():
        sweep.do(task)
    task = sweep.own(RUNS[2])[0]
    sweep.event("started", task=task.id, runs=1)
    assert sweep.store.claim(task.identity, this_process()) is None

    found = status(sweep)
    assert [run.state for run in found.runs] == [RunState.WAITING, RunState.WAITING, RunState.RUNNING, RunState.WAITING]
    assert found.runs[2].task == task.id


def test_a_submission_without_an_answer_is_mentioned(sweep: HandMade) -> None:
    sweep.event("submitting", token="x", array="runs-1", job_name="test:x", jobs=[], shape={}, after=[], canary=None)

    assert "not answered" in status(sweep).notes[0]


def test_the_index_has_every_task_of_every_run(sweep: HandMade) -> None:
    content = orjson.loads((sweep.results / "index.json").read_bytes())

    assert content["tasks"] == [task.id for task in sweep.plan.tasks]
    for run in content["runs"]:
        assert [content["tasks"][number] for number in run[4]] == [task.id for task in sweep.plan.tasks_of(run[0])]


def test_a_cancelled_run_does_not_wait_for_the_shared_work_of_others(sweep: HandMade) -> None:
    jobs = sweep.submit_all()
    sweep.in_queue(jobs["shared"], "RUNNING")
    sweep.event("cancelled", jobs=[jobs[RUNS[0]]])
    for run in RUNS[1:]:
        sweep.in_queue(jobs[run], "PENDING", "Dependency")

    assert states(sweep) == [RunState.CANCELLED] + [RunState.WAITING] * 3

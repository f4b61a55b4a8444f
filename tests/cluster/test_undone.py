"""What a launcher makes of a job that did a part of its tasks: only what needs a failed task is blocked."""

from __future__ import annotations

from pathlib import Path

import pytest

from eva_hpc.cluster.board import Board, State
from eva_hpc.cluster.causes import Cause
from eva_hpc.cluster.execution import grace_s
from eva_hpc.cluster.ledger import Ledger
from eva_hpc.cluster.queue import QueueEntry
from eva_hpc.cluster.slurm import SlurmSweep
from eva_hpc.cluster.submission import Surroundings
from eva_hpc.config.site import Site
from eva_hpc.plan.plan import Plan, PlannedRun, Task
from eva_hpc.store.keys import Identity

JOB = "7"


def site(**slurm: object) -> Site:
    return Site.model_validate({"name": "here", "executor": "slurm", "scale": "lab", "slurm": slurm})


def task(stage: str, name: str, *inputs: str) -> Task:
    sources = {f"input{number}": Identity(*source.split("/")) for number, source in enumerate(inputs)}
    return Task(identity=Identity(stage, name), spec={}, part="", parallel="one", inputs=sources, runs=("run",))


TASKS = [
    task("ask_judge", "a"),
    task("ask_judge", "b"),
    task("judged_score", "a", "ask_judge/a"),
    task("judged_score", "b", "ask_judge/b"),
]
PLAN = Plan(
    name="two",
    runs=(
        PlannedRun(
            name="run",
            point={},
            seed=1,
            evaluations={name: Identity("judged_score", name) for name in "ab"},
            judges=dict.fromkeys("ab", "j"),
        ),
    ),
    tasks=tuple(TASKS),
    separate_stages=4,
)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A sweep whose one job has begun."""
    folder = tmp_path / "results"
    launcher, driver = Ledger(folder, "launcher-1"), Ledger(folder, f"job-{JOB}")
    job = {"name": "run", "tasks": [task.id for task in TASKS]}
    launcher.record("launched")
    launcher.record("submitting", token="t", array="runs-1", jobs=[job], shape={}, job_name="two:runs-1:t")
    launcher.record("submitted", token="t", job=JOB, count=1)
    driver.record("begun", job=JOB, name="run", restart=0, token="t")
    return folder


def failed(results: Path, name: str, cause: Cause) -> None:
    Ledger(results, f"job-{JOB}").record("failed", task=name, job=JOB, cause=cause, reason="it failed")


def decided(results: Path, state: str = "FAILED", retries: int = 2) -> tuple[SlurmSweep, dict[str, str]]:
    """The sweep after its decision about the job, and what the board says of its tasks."""
    where = Surroundings(PLAN, site(retries=retries), results.parent / "store", results, [])
    sweep = SlurmSweep(Board(PLAN), where, TASKS, canary=False)
    sweep._read_ledger()
    sweep.entries = {JOB: QueueEntry(state, "None", None)}
    sweep._decide(sweep.jobs[JOB], [one for one in TASKS if one.id in sweep.waiting], [], False)
    sweep._read_ledger()
    return sweep, {one.id: sweep.board.entries[one.id].state.value for one in TASKS}


def decisions(results: Path) -> list[tuple[str, str, list[str]]]:
    events = [event for event in Ledger(results).events() if event["event"] == "decision"]
    return [(event["cause"], event["decision"], event["tasks"]) for event in events]


def test_only_what_needs_a_failed_task_is_blocked_and_the_rest_is_due_again(results: Path) -> None:
    failed(results, "ask_judge/a", Cause.CODE_OR_DATA)
    sweep, states = decided(results, "NODE_FAIL")
    assert states == {
        "ask_judge/a": "failed",
        "judged_score/a": "blocked",
        "ask_judge/b": "pending",
        "judged_score/b": "pending",
    }
    assert decisions(results) == [
        ("code_or_data", "stop", ["ask_judge/a", "judged_score/a"]),
        ("node_failure", "resubmit", ["ask_judge/b", "judged_score/b"]),
    ]
    assert [one.id for one in sweep._due()] == ["ask_judge/b", "judged_score/b"]


def test_two_that_failed_are_told_each_with_its_cause(results: Path) -> None:
    failed(results, "ask_judge/a", Cause.CODE_OR_DATA)
    failed(results, "ask_judge/b", Cause.UNAVAILABLE)
    failed(results, "ask_judge/a", Cause.CODE_OR_DATA)  # the last word of its job
    sweep, states = decided(results, retries=0)
    assert states["ask_judge/a"] == states["ask_judge/b"] == "failed"
    assert states["judged_score/a"] == states["judged_score/b"] == "blocked"
    assert [decision[:2] for decision in decisions(results)] == [("code_or_data", "stop"), ("unavailable", "stop")]
    assert sweep.board.entries["ask_judge/b"].reason == "it failed [unavailable]"
    assert sweep._due() == []


def test_what_did_not_answer_goes_in_another_job_so_that_a_canary_holds_nobody_for_good(results: Path) -> None:
    failed(results, "ask_judge/b", Cause.UNAVAILABLE)
    sweep, states = decided(results, retries=1)
    assert decisions(results)[0] == ("unavailable", "resubmit", ["ask_judge/b", "judged_score/b"])
    assert set(states.values()) == {State.PENDING.value}
    assert not sweep._canary_given_up(sweep.jobs[JOB])


@pytest.mark.parametrize("cause", [Cause.DISK_FULL, Cause.KILLED, Cause.TIMEOUT])
def test_where_the_driver_could_not_go_on_all_that_is_left_is_given_up(results: Path, cause: Cause) -> None:
    failed(results, "ask_judge/a", cause)
    _, states = decided(results)
    assert list(states.values()) == ["failed", "blocked", "blocked", "blocked"]
    assert len(decisions(results)) == 1


def test_a_cancelled_job_is_given_up_as_a_whole(results: Path) -> None:
    _, states = decided(results, "CANCELLED")
    assert list(states.values()) == ["failed", "blocked", "blocked", "blocked"]


def test_a_job_is_hopeless_only_if_none_of_its_tasks_can_be_done(results: Path) -> None:
    failed(results, "ask_judge/a", Cause.CODE_OR_DATA)
    sweep, _ = decided(results, "NODE_FAIL")
    assert not sweep._is_hopeless(sweep.jobs[JOB])
    failed(results, "ask_judge/b", Cause.CODE_OR_DATA)
    sweep, _ = decided(results)
    assert sweep._is_hopeless(sweep.jobs[JOB])


def test_stages_have_the_time_that_the_site_gives_them_before_the_limit() -> None:
    local = Site.model_validate({"name": "here", "executor": "local", "scale": "lab"})
    assert (grace_s(local), grace_s(site(signal_delay_s=120)), grace_s(site(signal_delay_s=20))) == (30, 105, 15)

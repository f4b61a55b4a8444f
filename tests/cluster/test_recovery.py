"""Decisions after failures, from causes and the ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eva_hpc.cluster import recovery
from eva_hpc.cluster.blame import bad_nodes, blame, blameworthy
from eva_hpc.cluster.causes import Cause
from eva_hpc.store.keys import digest

TASK = "train/5f0c"


def retried(cause: str, task: str = TASK) -> dict[str, Any]:
    return {"event": "retried", "task": task, "cause": cause}


def resubmitted(cause: str) -> dict[str, Any]:
    return {"event": "decision", "tasks": [TASK], "cause": cause, "decision": "resubmit"}


@pytest.mark.parametrize("cause", ["timeout", "preempted"])
def test_interruptions_cost_no_retry_however_many_there_are(cause: str) -> None:
    events = [resubmitted(cause)] * 50
    assert recovery.resubmit(Cause(cause), events, TASK, retries=0)
    assert recovery.retries_spent(events, TASK) == 0


@pytest.mark.parametrize("cause", ["node_failure", "killed", "peer_lost", "hung", "launch_failure", "lost"])
def test_failures_of_machines_are_tried_again_within_the_retries(cause: str) -> None:
    assert recovery.resubmit(Cause(cause), [], TASK, retries=2)
    assert recovery.resubmit(Cause(cause), [retried("killed")], TASK, retries=2)
    assert not recovery.resubmit(Cause(cause), [retried("killed"), resubmitted("lost")], TASK, retries=2)


def test_retries_of_other_tasks_do_not_count() -> None:
    assert recovery.retries_spent([retried("killed", "train/other")], TASK) == 0


@pytest.mark.parametrize("cause", ["code_or_data", "disk_full", "cancelled", "cuda_oom"])
def test_what_would_happen_again_stops_at_once(cause: str) -> None:
    assert not recovery.resubmit(Cause(cause), [], TASK, retries=9)


def test_what_did_not_answer_is_asked_again_by_its_job_after_ever_longer_waits() -> None:
    waited: list[float] = []
    events: list[dict[str, Any]] = [{**retried("killed"), "job": "7"}]
    while (wait := recovery.wait_s(events, TASK, "7")) is not None:
        waited.append(wait / 60)
        events.append({**retried("unavailable"), "job": "7"})
    assert waited == [1, 2, 5, 10, 10, 10]
    assert recovery.wait_s(events, TASK, "8") == recovery.wait_s(events, "train/other", "7") == 60
    assert recovery.retries_spent(events, TASK) == 1, "it takes nothing from the budget for failures of machines"


def test_then_it_is_submitted_again_within_the_retries() -> None:
    assert recovery.resubmit(Cause.UNAVAILABLE, [{**retried("unavailable"), "job": "7"}] * 6, TASK, retries=1)
    assert not recovery.resubmit(Cause.UNAVAILABLE, [resubmitted("unavailable")], TASK, retries=1)
    assert not recovery.resubmit(Cause.UNAVAILABLE, [], TASK, retries=0)


def test_more_memory_is_given_once() -> None:
    assert recovery.resubmit(Cause.HOST_OOM, [], TASK, retries=0)
    assert not recovery.resubmit(Cause.HOST_OOM, [retried("host_oom")], TASK, retries=9)


def test_typing_the_command_again_renews_the_budgets() -> None:
    events = [retried("killed"), retried("killed"), {"event": "launched"}, retried("killed")]
    assert recovery.retries_spent(recovery.since_launch(events), TASK) == 1
    assert recovery.since_launch(events[:2]) == events[:2]


def test_two_attempts_at_the_limit_with_nothing_new_saved_are_no_progress() -> None:
    def requeued(mark: str) -> dict[str, Any]:
        return {"event": "requeued", "task": TASK, "mark": mark}

    nothing = digest([])
    assert not recovery.makes_no_progress([], TASK, nothing)
    assert not recovery.makes_no_progress([], TASK, "a")
    assert recovery.makes_no_progress([requeued(nothing)], TASK, nothing)
    assert not recovery.makes_no_progress([requeued("a"), requeued("b")], TASK, "b")
    assert not recovery.makes_no_progress([requeued("b"), requeued("b"), requeued("a")], TASK, "b")
    assert recovery.makes_no_progress([requeued("a"), requeued("b"), requeued("b")], TASK, "b")
    assert not recovery.makes_no_progress([{**requeued(nothing), "task": "train/other"}], TASK, nothing)


def test_a_node_is_bad_after_so_many_failures_whoever_tells_of_them(tmp_path: Path) -> None:
    blame(tmp_path, ["node1"], "7_1", 0)
    blame(tmp_path, ["node1"], "7_1", 0)
    assert bad_nodes(tmp_path, after=2) == []
    blame(tmp_path, ["node1", "node2"], "7_1", 1)
    assert bad_nodes(tmp_path, after=2) == ["node1"]


def test_of_several_nodes_only_those_that_are_down_are_blamed() -> None:
    assert blameworthy(["node1"], []) == ["node1"]
    assert blameworthy(["node1", "node2"], ["node2"]) == ["node2"]
    assert blameworthy(["node1", "node2"], []) == []

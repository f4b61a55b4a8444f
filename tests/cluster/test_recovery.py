"""Decisions after failures, from causes and the ledger."""

from __future__ import annotations

from typing import Any

import pytest

from eva_hpc.cluster import recovery
from eva_hpc.cluster.causes import Cause

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

    assert not recovery.makes_no_progress([], TASK, "a")
    assert not recovery.makes_no_progress([requeued("a")], TASK, "b")
    assert not recovery.makes_no_progress([requeued("b"), requeued("a")], TASK, "b")
    assert recovery.makes_no_progress([requeued("a"), requeued("b")], TASK, "b")
    assert not recovery.makes_no_progress([{**requeued("b"), "task": "train/other"}], TASK, "b")


def test_a_node_is_bad_after_so_many_failures_each_counted_once() -> None:
    def restarted(job: str, restart: int, *nodes: str) -> dict[str, Any]:
        return {"event": "restarted", "job": job, "restart": restart, "cause": "node_failure", "nodes": list(nodes)}

    seen_by_driver = restarted("1", 1, "node1")
    told_by_accounting = {"event": "attempt", "job": "1", "attempt": 0, "cause": "node_failure", "nodes": ["node1"]}
    assert recovery.bad_nodes([seen_by_driver, told_by_accounting], after=2) == []
    assert recovery.bad_nodes([seen_by_driver, restarted("1", 2, "node1", "node2")], after=2) == ["node1"]
    preempted = {**restarted("2", 1, "node3"), "cause": "preempted"}
    assert recovery.bad_nodes([preempted, preempted], after=1) == []

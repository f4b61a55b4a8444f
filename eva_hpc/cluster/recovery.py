"""What to do after a failure, from its cause and from what the ledger says was tried before. Pure: reads events, decides.

| cause                                    | in the job                            | once the job has ended              |
|------------------------------------------|---------------------------------------|-------------------------------------|
| timeout, preempted                       | save, requeue, go on; costs no retry  | the same, if it could not requeue   |
| node failure                             | Slurm requeues; nodes that failed     | submitted again, without such nodes |
|                                          | `exclude_node_after` times are left   |                                     |
| killed, hung, partner lost, not launched | again in the same job, within         | submitted again, within `retries`   |
|                                          | `retries`                             |                                     |
| CUDA out of memory                       | micro-batch halved, once              | stop                                |
| host out of memory                       | requeued with twice the memory, once  | submitted again with twice, once    |
| a server outside does not answer         | again in the same job, after 1, 2, 5, | submitted again, within `retries`   |
|                                          | 10, 10 and 10 minutes                 |                                     |
| code or data, disk full                  | stop                                  | stop                                |
| cancelled by the user                    | –                                     | stop                                |

The budgets are those of one command: typing it again is the user's word that it is worth trying again.

A task that stopped takes with it what reads from it. The other tasks of its job are gone on with, unless the cause is one that
they would meet as well: the node, the disk, the time limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from eva_hpc.cluster.causes import Cause
from eva_hpc.store.keys import digest

Event = Mapping[str, Any]

MOST_WITHOUT_PROGRESS = 2
"""Attempts of a stage in a row that may end at the time limit without having saved anything new."""


WAITS_MINUTES = (1, 2, 5, 10, 10, 10)
"""Before a stage asks again, in the same job, what did not answer from outside. More than `retries`, which are for machines of
ours: outages of servers take tens of minutes, and it costs nearly nothing to wait, because judging holds no GPU."""


def since_launch(events: Sequence[Event]) -> list[Event]:
    """The events since the command was typed last."""
    starts = [index for index, event in enumerate(events) if event["event"] == "launched"]
    return list(events[starts[-1] :] if starts else events)


def retries_spent(events: Iterable[Event], task: str) -> int:
    """How often a task was tried again, in its job or by another one, after a failure that was nobody's fault."""
    return sum(
        event["event"] in ("retried", "decision")
        and task in (event.get("task"), *event.get("tasks", ()))
        and event.get("decision", "retry") in ("retry", "resubmit")
        and Cause(event["cause"]).is_chance
        for event in events
    )


def wait_s(events: Iterable[Event], task: str, job: str) -> float | None:
    """Seconds to wait before a job asks again what did not answer; None once it has waited often enough."""
    tries = (event for event in events if event["event"] == "retried" and event["cause"] == Cause.UNAVAILABLE)
    waited = sum((event["task"], event["job"]) == (task, job) for event in tries)
    return 60.0 * WAITS_MINUTES[waited] if waited < len(WAITS_MINUTES) else None


def tried_before(events: Iterable[Event], task: str, cause: Cause) -> bool:
    """Whether something was changed already because a task failed in this way."""
    return any(
        event["event"] in ("retried", "decision")
        and task in (event.get("task"), *event.get("tasks", ()))
        and event["cause"] == cause
        for event in events
    )


def makes_no_progress(events: Iterable[Event], task: str, mark: str) -> bool:
    """Whether attempts keep ending at the time limit without having saved anything new. `mark` stands for what is saved now."""
    marks = [event["mark"] for event in events if "mark" in event and task in (event.get("task"), *event.get("tasks", ()))]
    # The mark before the first attempt: nothing saved.
    latest = [digest([]), *marks, mark][-MOST_WITHOUT_PROGRESS - 1 :]
    return len(latest) > MOST_WITHOUT_PROGRESS and len(set(latest)) == 1


def resubmit(cause: Cause, events: Sequence[Event], task: str, retries: int) -> bool:
    """Whether a task whose job ended without doing it, and without its driver having decided, is worth another job."""
    if cause.is_interruption:
        return True
    same = [event for event in events if event["event"] == "decision" and task in event["tasks"] and event["cause"] == cause]
    if cause in (Cause.MISSING_INPUT, Cause.HELD):
        # What it reads is made again, at most as often as that itself is tried: never without end.
        return len(same) <= retries
    if cause is Cause.UNAVAILABLE:
        return len(same) < retries
    if cause is Cause.HOST_OOM:
        return not tried_before(events, task, cause)
    return cause.is_chance and retries_spent(events, task) < retries

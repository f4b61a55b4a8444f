"""What a sweep's ledger tells, folded: who does which task, how each was left, what was tried again, what it cost."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from eva_hpc.cluster.causes import Cause
from eva_hpc.cluster.ledger import SubmittedJob, jobs_in

Event = Mapping[str, Any]

_OF_A_TASK = frozenset({"started", "retried", "done", "failed", "requeued", "ended", "stopped"})


@dataclass
class History:
    """The past of a sweep, by task id and by job id ("12_3")."""

    jobs: dict[str, SubmittedJob]
    """Jobs that sbatch took, oldest first."""
    owner: dict[str, str]
    """The job that was last submitted for a task."""
    task: dict[str, Event] = field(default_factory=dict)
    """The last event of a task."""
    job: dict[str, Event] = field(default_factory=dict)
    """The last event that a job wrote of itself or of a task."""
    started: dict[str, Event] = field(default_factory=dict)
    """The last start of a task."""
    done: dict[str, Event] = field(default_factory=dict)
    """How a task was last done."""
    failed: dict[str, Event] = field(default_factory=dict)
    """How a task last failed."""
    decisions: dict[str, Event] = field(default_factory=dict)
    """What was last decided about a task or a job, by either's id."""
    attempts: dict[str, dict[int, Event]] = field(default_factory=lambda: defaultdict(dict))
    """The attempts of a job as they were recorded, by their number."""
    cancelled: set[str] = field(default_factory=set)
    """Jobs cancelled by ``eva-hpc cancel``."""
    retries: Counter[str] = field(default_factory=Counter)
    """How often something was tried again after a failure, by cause."""
    requeues: Counter[str] = field(default_factory=Counter)
    """How often a job was started again after it went back into the queue."""
    bad_nodes: list[str] = field(default_factory=list)
    """Nodes that failed."""
    unanswered: dict[str, Event] = field(default_factory=dict)
    """Submissions that sbatch has not answered, by the name of the job."""
    gpu_seconds: dict[str | None, float] = field(default_factory=lambda: defaultdict(float))
    """GPU seconds of the stages that a job did, for jobs of which there is no accounting."""
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """How long tasks took, by stage."""


def history_of(events: Sequence[Event]) -> History:
    """Fold the events of a ledger, given in the order of time."""
    jobs = jobs_in(events)
    history = History(jobs, {task: job.id for job in jobs.values() for task in job.tasks})
    of_task, of_job, started, done = history.task, history.job, history.started, history.done
    seconds, gpu_seconds = history.seconds, history.gpu_seconds
    suspicious = []
    for event in events:
        kind = event["event"]
        if kind in _OF_A_TASK and "task" in event:
            task, job = event["task"], event.get("job")
            of_task[task] = event
            if job is not None:
                of_job[job] = event
            if kind == "started":
                started[task] = event
            elif kind == "done":
                done[task] = event
                seconds[task.partition("/")[0]].append(event["seconds"])
                gpu_seconds[job] += event["seconds"] * event.get("gpus", 0)
            elif kind == "failed":
                history.failed[task] = event
            elif kind == "retried":
                history.retries[event.get("cause", "")] += 1
        elif kind in ("begun", "ended"):
            of_job[event["job"]] = event
            if event.get("restart"):
                history.requeues[event["job"]] = int(event["restart"])
        elif kind == "attempt":
            history.attempts[event["job"]][event["attempt"]] = event
            suspicious.append(event)
        elif kind == "restarted":
            suspicious.append(event)
        else:
            _of_the_launcher(history, kind, event)
    failures = (event for event in suspicious if event["cause"] == Cause.NODE_FAILURE)
    history.bad_nodes += sorted({node for event in failures for node in event["nodes"]})
    return history


def _of_the_launcher(history: History, kind: str, event: Event) -> None:
    if kind == "submitting":
        history.unanswered[event["job_name"]] = event
    elif kind in ("submitted", "refused"):
        asked = [name for name, one in history.unanswered.items() if one["token"] == event["token"]]
        for name in asked:
            del history.unanswered[name]
    elif kind == "cancelled":
        history.cancelled.update(event["jobs"])
    elif kind == "decision":
        for name in (*event["tasks"], event["job"]):
            history.decisions[name] = event
        if event["decision"] == "resubmit":
            history.retries[event["cause"]] += 1

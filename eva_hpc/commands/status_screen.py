"""The screen of ``eva-hpc status``: totals, runs (each, or counted by grid value), what waits, what failed, what it cost."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from eva_hpc.cluster.board import Entry, State
from eva_hpc.cluster.job_states import Phase, Wait
from eva_hpc.cluster.live import clock
from eva_hpc.cluster.sweep_status import Failure, RunState, RunStatus, SharedWork, SweepStatus
from eva_hpc.config.yaml_file import shown

MOST_RUNS = 40
"""Runs that are shown one by one; more are counted by grid value."""

_MOST_ATTENTION = 12
_MOST_VALUES = 30
_MOST_FAILURES = 6
_EVIDENCE = 160

_STYLES = {
    RunState.FAILED: "bold red",
    RunState.HELD: "bold magenta",
    RunState.CANCELLED: "red",
    RunState.RUNNING: "yellow",
    RunState.WAITING: "cyan",
    RunState.OPEN: "dim",
    RunState.DONE: "green",
}
_NEEDS_ATTENTION = (RunState.FAILED, RunState.HELD, RunState.CANCELLED)


def screen(status: SweepStatus, site: str) -> RenderableType:
    """All that there is to say about a sweep."""
    pieces: list[RenderableType] = [_header(status, site), *(Text(note, "bold yellow") for note in status.notes), Text()]
    if status.shared:
        pieces += [_shared(status), Text()]
    if len(status.runs) <= MOST_RUNS:
        pieces.append(_each(status, status.runs))
    else:
        pieces.append(_by_value(status))
        for states, most in ((_NEEDS_ATTENTION, _MOST_ATTENTION), ((RunState.RUNNING,), _MOST_ATTENTION)):
            runs = [run for state in states for run in status.runs if run.state is state]
            if runs:
                more = f" (the first {most} of {len(runs)})" if len(runs) > most else ""
                pieces += [Text(f"\n{', '.join(state.value for state in states)}{more}", "bold"), _each(status, runs[:most])]
    if status.waits:
        pieces += [Text("\nwaiting in Slurm's queue", "bold"), *(_wait(wait) for wait in status.waits)]
    pieces += _failures(status.failures)
    pieces.append(_history(status))
    return Group(*pieces)


def _header(status: SweepStatus, site: str) -> Text:
    text = Text()
    text.append(f"{status.name}", "bold").append(f" at {site}, results in {shown(status.results)}\n", "dim")
    text.append(f"{len(status.runs)} runs: ")
    counts = [(state, status.counts[state]) for state in reversed(RunState) if status.counts[state]]
    for index, (state, count) in enumerate(counts):
        text.append(", " if index else "").append(f"{count} {state.value}", _STYLES[state])
    text.append(f"\n{status.stages_done} of {status.stages} stages done")
    if status.gpu_hours:
        text.append(f", {status.gpu_hours:,.1f} GPU hours so far")
    if status.seconds_left is not None:
        text.append(f", about {clock(status.seconds_left)} left at this pace")
    return text


def _each(status: SweepStatus, runs: Sequence[RunStatus]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("run", "", "stages", "at", "job"):
        table.add_column(name, no_wrap=name != "at", overflow="ellipsis" if name != "at" else "fold")
    order = list(RunState)
    for run in sorted(runs, key=lambda run: order.index(run.state)):
        table.add_row(
            Text(run.name.replace(",", ", ")),
            Text(run.state.value, _STYLES[run.state]),
            f"{run.done}/{run.stages}",
            Text(_at(status, run)),
            Text(_some(run.jobs) if run.state is not RunState.DONE else "", "dim"),
        )
    return table


def _at(status: SweepStatus, run: RunStatus) -> str:
    if run.state is RunState.RUNNING:
        work = _task(status.results, run.task, run.part, run.since) if run.task else "between two stages"
        return f"{work}, {run.why}" if run.why else work
    return run.why


def _shared(status: SweepStatus) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("shared work", "", "at", "job"):
        table.add_column(name)
    for work in status.shared[:_MOST_ATTENTION]:
        style = _STYLES[{Phase.RUNNING: RunState.RUNNING, Phase.HELD: RunState.HELD}.get(work.phase, RunState.WAITING)]
        table.add_row(
            Text(work.name), Text(work.phase.value, style), Text(_shared_at(status, work)), Text(work.job or "", "dim")
        )
    return table


def _shared_at(status: SweepStatus, work: SharedWork) -> str:
    return _task(status.results, work.task, work.part, work.since) if work.task else work.why


def _task(results: Path, task: str, part: str, since: str | None) -> str:
    """A stage at work, with its progress and for how long."""
    stage = task.partition("/")[0]
    share = Entry(State.RUNNING, work=results.parent / "store" / task / "work").progress()
    words = stage if part in (stage, "evaluation") else f"{stage} ({part})"
    if share:
        words += f" {share:.0%}"
    if since:
        words += f", {clock(max(0.0, (datetime.now(timezone.utc) - datetime.fromisoformat(since)).total_seconds()))}"
    return words


def _by_value(status: SweepStatus) -> Table:
    """Counts of runs by state, for every grid point or, where these are many, for every value of each axis."""
    axes = list(status.runs[0].point)
    points = {tuple(run.point.values()) for run in status.runs}
    counts: dict[tuple[str, str], Counter[RunState]] = defaultdict(Counter)
    for run in status.runs:
        if len(points) <= _MOST_VALUES:
            counts["grid point", ", ".join(f"{axis}={value}" for axis, value in run.point.items())][run.state] += 1
        else:
            for axis in axes:
                counts[axis, str(run.point[axis])][run.state] += 1
    per_axis = Counter(axis for axis, _ in counts)
    listed = [key for key in counts if per_axis[key[0]] <= _MOST_VALUES]
    states = [state for state in reversed(RunState) if status.counts[state]]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("runs with")
    for state in states:
        table.add_column(state.value, justify="right", header_style=_STYLES[state])
    for axis, value in listed:
        of = counts[axis, value]
        table.add_row(value if axis == "grid point" else f"{axis}={value}", *(str(of[state] or "") for state in states))
    if not listed:
        table.add_row("any value", *(str(status.counts[state]) for state in states))
    return table


def _wait(wait: Wait) -> Text:
    jobs = "1 job" if wait.jobs == 1 else f"{wait.jobs:,} jobs"
    start = f", expected {wait.start:%d %b %H:%M}" if wait.start and not wait.reason.is_stuck else ""
    advice = f": {wait.reason.advice}" if wait.reason.advice else ""
    style = "bold red" if wait.reason.is_stuck else ""
    return Text(f"  {jobs}: {wait.reason.meaning} ({wait.reason.code}); {wait.reason.outlook.value}{start}{advice}", style)


def _failures(failures: Sequence[Failure]) -> list[RenderableType]:
    """Failures, those with the same stage, cause and evidence together."""
    groups: dict[tuple[str, str, str, str, str], list[Failure]] = defaultdict(list)
    for failure in failures:
        stage = failure.task.partition("/")[0]
        key = (stage, failure.part, failure.cause, failure.evidence, failure.next if len(failures) <= _MOST_FAILURES else "")
        groups[key].append(failure)
    lines: list[RenderableType] = [Text("\nfailures", "bold")] if failures else []
    for (stage, part, cause, evidence, _), some in list(groups.items())[:_MOST_FAILURES]:
        runs = list(dict.fromkeys(run for failure in some for run in failure.runs))
        who = runs[0] if len(runs) == 1 else f"{len(runs):,} runs, e.g. {runs[0]}"
        text = Text("  ").append(f"{stage} ({part})", "bold red" if not some[0].pending else "yellow")
        text.append(f" of {who}: {cause}")
        text.append(f"\n    {evidence[:_EVIDENCE]}{'…' if len(evidence) > _EVIDENCE else ''}" if evidence else "")
        text.append(f"\n    {shown(some[0].log)}" if some[0].log.is_file() else "", "dim")
        text.append(f"\n    {some[0].next}")
        lines.append(text)
    if len(groups) > _MOST_FAILURES:
        lines.append(Text(f"  and {len(groups) - _MOST_FAILURES} more kinds of failure: --json has them all"))
    return lines


def _history(status: SweepStatus) -> Text:
    words = []
    if status.retries:
        words.append("tried again: " + ", ".join(f"{count} x {cause}" for cause, count in status.retries.items()))
    if status.requeues:
        words.append(f"requeued: {status.requeues}")
    if status.bad_nodes:
        words.append("nodes that failed: " + ", ".join(status.bad_nodes))
    return Text("\n" + "; ".join(words) if words else "")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) < 3 else f"{names[0]} and {len(names) - 1} more"

"""``eva-hpc cancel FILE [RUN ...]``: end the Slurm jobs of a sweep, or of some of its runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from eva_hpc.commands.options import WORK_FAILED, File, NoSharing, Quick, RecipeName, Settings, SiteName, told_plainly

if TYPE_CHECKING:
    from eva_hpc.cluster.ledger import SubmittedJob
    from eva_hpc.plan.index import Index

_SHOWN = 20


def cancel(
    file: File,
    runs: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer reads it at run time
        typer.Argument(
            metavar="[RUN]...", help="runs by name or by what is enough of it; all that fit are meant; default: all"
        ),
    ] = None,
    site: SiteName = None,
    recipe: RecipeName = None,
    set_: Settings = [],  # noqa: B006
    quick: Quick = False,
    no_sharing: NoSharing = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False,
) -> None:
    """Cancel the jobs of a sweep that run or wait. What is done is kept; the same sweep command starts the rest again.

    Exit codes: 0 cancelled or nothing to cancel, 1 not cancelled, 2 a mistake in what was asked.
    """
    from eva_hpc.request import Request, open_request

    with told_plainly():
        opened = open_request(Request(file, site, recipe, tuple(set_), quick, not no_sharing))
        if not _cancel(opened.results, opened.site.executor == "slurm", runs or [], yes):
            raise typer.Exit(WORK_FAILED)


def _cancel(results: Path, on_slurm: bool, words: Iterable[str], yes: bool) -> bool:
    """Show, ask, record, cancel; returns whether all is as the user wants it."""
    from eva_hpc.cluster import queue
    from eva_hpc.cluster.history import history_of
    from eva_hpc.cluster.ledger import Ledger
    from eva_hpc.commands.run_names import matching, no_such_run
    from eva_hpc.plan.index import read_index

    index = read_index(results)
    if index is None:
        typer.echo("it was not started yet: nothing to cancel")
        return True
    wanted: set[str] = set()
    for one in words:
        found = matching(one, index.runs)
        if not found:
            raise no_such_run(one, index.runs)
        wanted.update(run.name for run in found)
    ledger = Ledger(results)
    past = history_of(ledger.events())
    if not past.jobs and not on_slurm:
        return _say_how_here(results)
    entries = queue.squeue(past.jobs, names=list(past.unanswered))
    active = {job: past.jobs.get(job) for job, entry in entries.items() if entry.active}
    chosen = of_runs(active, index, wanted) if wanted else list(active)
    if not chosen:
        typer.echo("none of its jobs runs or waits: nothing to cancel")
        return True
    for job in chosen[:_SHOWN]:
        submitted = active[job]
        typer.echo(f"  {job:<12} {entries[job].state.lower():<10} {submitted.name if submitted else entries[job].name}")
    if len(chosen) > _SHOWN:
        typer.echo(f"  and {len(chosen) - _SHOWN:,} more")
    states = Counter(entries[job].state.lower() for job in chosen)
    typer.echo(f"{len(chosen):,} of {len(active):,} active jobs: {', '.join(f'{n:,} {state}' for state, n in states.items())}")
    if not yes and not typer.confirm("cancel them?"):
        typer.echo("nothing was cancelled")
        return False
    ledger.record("cancelled", jobs=chosen, runs=sorted(wanted))  # first, so that no launcher takes their end for a failure
    queue.cancel(in_arrays(chosen, active))
    typer.echo(f"{len(chosen):,} jobs cancelled; the same sweep command submits them again")
    return True


def _say_how_here(results: Path) -> bool:
    from eva_hpc.cluster.sweep_status import status_of

    status = status_of(results)
    if status is None or not status.active:
        typer.echo("nothing of it is at work: nothing to cancel")
        return True
    typer.echo("it runs on this machine: press Ctrl-C in its terminal; what is done is kept, what is at work saves and ends")
    return False


def of_runs(active: Mapping[str, SubmittedJob | None], index: Index, wanted: Collection[str]) -> list[str]:
    """The active jobs that some runs have for themselves, and those that no other run with an active job of its own needs."""
    users = {index.tasks[number]: {run.name for run in some} for number, some in index.users.items()}
    needed = {job: set().union(*(users.get(task, set()) for task in one.tasks)) for job, one in active.items() if one}
    others = {name for names in needed.values() if len(names) == 1 for name in names} - set(wanted)
    return [job for job, names in needed.items() if names & set(wanted) and not names & others]


def in_arrays(chosen: Collection[str], active: Collection[str]) -> list[str]:
    """The jobs by their arrays' ids where all that is active of an array is meant: thousands of ids are much work for Slurm."""
    arrays = {job: job.partition("_")[0] for job in active}
    whole = set(arrays.values()) - {arrays[job] for job in active if job not in set(chosen)}
    return sorted({arrays[job] if arrays[job] in whole else job for job in chosen})

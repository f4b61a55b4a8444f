"""From the words of a command to a finished sweep: plan, reuse, execute, watch, tables."""

from __future__ import annotations

import getpass
import os
import platform
import shlex
import sys
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from eva_hpc.cluster import queue
from eva_hpc.cluster.board import Board, State
from eva_hpc.cluster.execution import survey, versions
from eva_hpc.cluster.ledger import Ledger
from eva_hpc.cluster.live import LiveDisplay, shown
from eva_hpc.cluster.snapshot import Snapshot, setup_lines, take_snapshot
from eva_hpc.config.check import check_engines
from eva_hpc.config.errors import ConfigError
from eva_hpc.outlook import look_ahead
from eva_hpc.plan.cost import Estimate, check_budget
from eva_hpc.plan.describe import describe
from eva_hpc.plan.index import write_index
from eva_hpc.plan.jobs import make_arrays, make_jobs, pending_tasks
from eva_hpc.plan.plan import Plan, Task
from eva_hpc.request import Opened, Request, open_request
from eva_hpc.store.artifacts import write_atomically
from eva_hpc.store.garbage import plans_held
from eva_hpc.store.inventory import Inventory
from eva_hpc.store.keys import digest
from eva_hpc.store.lock import alone
from eva_hpc.store.records import write_jsonl

if TYPE_CHECKING:
    from eva_hpc.cluster.slurm import SlurmSweep

_SHOWN_FAILURES = 5
_SHOWN_LOG_LINES = 8
_SLURM_MAY_TAKE_S = 30.0


@dataclass(frozen=True)
class Orders:
    """What the command is to do with the sweep it names.

    `wait`: on Slurm, stay until all jobs have ended. `canary`: the first job of an array goes ahead. `max_gpu_hours`: refuse to
    start what is estimated to cost more.
    """

    dry_run: bool = False
    wait: bool = True
    canary: bool = True
    max_gpu_hours: float | None = None


class JobsGoOn(KeyboardInterrupt):
    """The jobs go on. The same command shows how far they are, and writes the table at the end."""


def launch(request: Request, orders: Orders, console: Console) -> bool:
    """Do what was asked; returns whether everything that was to be done is done.

    Raises:
        ConfigError: a mistake in what was asked; nothing was started.
        QueueError: Slurm does not answer.
        KeyboardInterrupt: the user, or a signal, stopped it; what was done is kept. :class:`JobsGoOn` if Slurm has the rest.
    """
    sweep = open_request(request)
    if sweep.chosen_here:
        console.print(f"[bold]No Slurm here: running on this machine (site {sweep.site.name}).[/bold]")
    if orders.dry_run:
        _show_plan(sweep, orders, console)
        return True
    if sweep.site.executor == "slurm":
        check_engines(sweep.experiment)
        _await_slurm(sweep, console)
    try:
        for folder in (sweep.results, sweep.store.root):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"site {sweep.site.name}: root {sweep.root}: cannot be written: {error.strerror}") from None
    if sweep.site.executor == "local":
        with alone(sweep.store.root):
            return _carry_out(sweep, orders, console)
    return _carry_out(sweep, orders, console)


def _await_slurm(sweep: Opened, console: Console) -> None:
    """Give a controller that restarts a moment.

    Raises:
        ConfigError: it does not come back.
    """
    until = time.monotonic() + _SLURM_MAY_TAKE_S
    said = False
    while not queue.available():
        if time.monotonic() > until or not queue.installed():
            raise ConfigError(
                f"site {sweep.site.name}: Slurm does not answer here (scontrol ping). Without a cluster, a throwaway one will "
                'do: eval "$(.venv/bin/eva-hpc devcluster up)", then --site devcluster'
            )
        if not said:
            console.print("Slurm does not answer, asking again")
        said = True
        time.sleep(1)


def _carry_out(sweep: Opened, orders: Orders, console: Console) -> bool:
    """Reuse what is done, execute the rest, write the tables; returns as :func:`launch`."""
    plan, store = sweep.plan, sweep.store
    _record_plan(sweep)
    for line in survey(plan, store):
        console.print(f"[bold red]set aside:[/bold red] {escape(line)}")
    inventory = Inventory(store)
    pending = pending_tasks(plan, inventory.holds)
    board = _board(plan, inventory, pending)
    _say_what_is_ahead(plan, pending, board, console)
    snapshot = None
    if pending:
        cost = _check_what_is_ahead(sweep, orders, pending, console)
        snapshot = take_snapshot(sweep.root) if sweep.site.executor == "slurm" else None
        _record_launch(sweep, cost, snapshot)
    if sweep.site.executor == "local":
        _run_here(board, sweep, pending, console)
    elif not _run_on_slurm(board, sweep, orders, pending, snapshot, console):
        return True
    _show_failures(board, console)
    _write_tables(sweep, console)
    _write_cost(sweep, console)
    return board.count(State.FAILED, State.BLOCKED, State.PENDING) == 0


def _record_plan(sweep: Opened) -> None:
    """Keep every plan that a sweep ever had: what they refer to is not garbage, and what changed can be explained."""
    content = sweep.plan.model_dump_json().encode()
    folder = sweep.results / "plans"
    folder.mkdir(exist_ok=True)
    path = folder / f"{digest(content.decode())}.json"
    with ExitStack() as held:
        with suppress(OSError):  # where the file system has no locks, nothing is ever removed
            held.enter_context(plans_held(sweep.store))
        if not path.exists():
            write_atomically(path, content)
    write_atomically(sweep.results / "plan.json", content)
    write_index(sweep.plan, sweep.results)
    write_atomically(sweep.results / "experiment.json", sweep.experiment.model_dump_json(indent=2).encode())


def _check_what_is_ahead(sweep: Opened, orders: Orders, pending: list[Task], console: Console) -> Estimate:
    """Say what it will cost; returns that.

    Raises:
        ConfigError: it costs more than allowed, the disk has no room, or jobs without network lack something.
    """
    outlook = look_ahead(sweep, pending)
    if orders.max_gpu_hours is not None:
        check_budget(outlook.cost, orders.max_gpu_hours)
    outlook.check()
    cost = outlook.cost
    if sweep.site.executor == "slurm":
        unknown = f", not counting {', '.join(cost.unknown)}" if cost.unknown else ""
        about = (
            f"about {cost.planned:.3g} {cost.unit} to do{unknown}"
            if cost.planned
            else "cost not known before some of it has run"
        )
        console.print(f"{about}; {outlook.disk_line}")
    for calls in outlook.calls:
        console.print(escape(str(calls)))
    for warning in outlook.warnings:
        console.print(f"[bold yellow]{escape(warning)}[/bold yellow]")
    return cost


def _record_launch(sweep: Opened, cost: Estimate, snapshot: Snapshot | None) -> None:
    Ledger(sweep.results).record(
        "launched",
        launch=os.environ.get("SLURM_JOB_ID") or f"{platform.node()}-{os.getpid()}",
        command=shlex.join([Path(sys.argv[0]).name, *map(_without_values_of_variables, sys.argv[1:])]),
        host=platform.node(),
        user=getpass.getuser(),
        git_commit=versions()["git_commit"],
        snapshot=snapshot.digest if snapshot else None,
        estimate=None if cost.unknown else {"planned": cost.planned, "naive": cost.naive, "unit": cost.unit},
    )


def _without_values_of_variables(word: str) -> str:
    """A word of the command line for the record: what it sets in the environment of jobs may be secret."""
    key = word.rpartition("=")[0]
    return f"{key}=…" if "site.environment" in key else word


def _board(plan: Plan, inventory: Inventory, pending: list[Task]) -> Board:
    """The board with what is done already, and the mean seconds that each stage took earlier."""
    board = Board(plan)
    names = {task.id for task in pending}
    seconds: dict[str, list[float]] = {}
    for task in plan.tasks:
        artifact = inventory.find(task.identity)
        if artifact is not None:
            seconds.setdefault(task.stage, []).append(artifact.manifest["seconds"])
        if task.id not in names:
            board.set(task, State.REUSED if artifact is not None else State.UNNEEDED)
    board.expected = {stage: sum(values) / len(values) for stage, values in seconds.items()}
    return board


def _say_what_is_ahead(plan: Plan, pending: list[Task], board: Board, console: Console) -> None:
    console.print(
        f"{plan.name}: {len(plan.runs)} runs, {plan.separate_stages} stages, {len(plan.tasks)} after sharing; "
        f"{board.count(State.REUSED, State.UNNEEDED)} done earlier and reused, {len(pending)} to do"
    )


def _run_here(board: Board, sweep: Opened, pending: list[Task], console: Console) -> None:
    from eva_hpc.cluster.local import LocalPool, width

    site = sweep.site
    with shown(LiveDisplay(board, console, site.slots, lambda task: width(task, site))):
        LocalPool(board, site, sweep.store, sweep.results).run(pending)


def _run_on_slurm(
    board: Board, sweep: Opened, orders: Orders, pending: list[Task], snapshot: Snapshot | None, console: Console
) -> bool:
    """Submit and, if asked to, watch; returns whether all jobs have ended."""
    from eva_hpc.cluster.slurm import SlurmSweep
    from eva_hpc.cluster.submission import Surroundings, without_others_words

    without_others_words(sweep.site)
    setup = setup_lines(snapshot) if snapshot else []
    around = Surroundings(sweep.plan, sweep.site, sweep.store.root, sweep.results, setup)
    slurm = SlurmSweep(board, around, pending, orders.canary)
    try:
        if not orders.wait:
            ended = slurm.run(wait=False)
            _say_what_is_queued(slurm, console)
            if not ended:
                console.print(JobsGoOn.__doc__)
            return ended
        with shown(LiveDisplay(board, console, max(1, sweep.site.slurm.max_parallel), lambda task: 1)):
            slurm.run(wait=True)
        if slurm.held:
            console.print(
                f"[bold]{len(slurm.held)} stages are held[/bold] in Slurm's queue: the run that went ahead failed in a way "
                "that they would share: mend it, and the same command runs them. --no-canary sends all at once."
            )
    except KeyboardInterrupt:
        _say_what_is_queued(slurm, console)
        raise JobsGoOn from None
    return True


def _say_what_is_queued(slurm: SlurmSweep, console: Console) -> None:
    stages = sum(len(slurm.jobs[job].tasks) for job in slurm.active)
    if stages:
        console.print(f"{len(slurm.active)} jobs in Slurm's queue for {stages} stages")
    if slurm.board.note:
        console.print(escape(slurm.board.note))


def _show_failures(board: Board, console: Console) -> None:
    failed = board.in_state(State.FAILED)
    for task in failed[:_SHOWN_FAILURES]:
        entry = board.entries[task.id]
        who = task.runs[0] if len(task.runs) == 1 else f"{len(task.runs)} runs"
        console.print(f"[bold red]failed:[/bold red] {task.stage} ({task.part}) of {escape(who)}: {escape(entry.reason)}")
        if entry.log is not None and entry.log.is_file():
            console.print(f"  {escape(str(entry.log))}", style="dim")
            for line in entry.log.read_text(errors="replace").splitlines()[-_SHOWN_LOG_LINES:]:
                console.print(f"    {escape(line)}", style="dim")
    if len(failed) > _SHOWN_FAILURES:
        console.print(f"… and {len(failed) - _SHOWN_FAILURES} more")


def _write_tables(sweep: Opened, console: Console) -> None:
    from eva_hpc.report.aggregate import aggregate
    from eva_hpc.report.collect import collect
    from eva_hpc.report.comparisons import compare_rows
    from eva_hpc.report.tables import terminal_table, write_tables

    rows = collect(sweep.plan, sweep.store)
    metrics = sweep.results / "metrics.jsonl"
    write_jsonl(metrics, rows)
    summary = aggregate(rows, sweep.experiment)
    comparisons = compare_rows(sweep.plan, sweep.store, sweep.experiment, summary.columns)
    compared = sweep.results / "comparisons.jsonl"
    write_jsonl(compared, (one.to_json() for one in comparisons))
    paths = write_tables(summary, sweep.experiment, sweep.results, comparisons)
    console.print(terminal_table(summary, sweep.experiment, comparisons), soft_wrap=False)
    for path in (*paths.values(), metrics, compared):
        console.print(_relative(path))


def _write_cost(sweep: Opened, console: Console) -> None:
    from eva_hpc.cluster.accounting import account, summary, write_account
    from eva_hpc.report.judge_usage import judge_usage

    cost = account(sweep.results)
    write_account(sweep.results, cost)
    console.print(escape(summary(cost)))
    for line in judge_usage(sweep.plan, sweep.store):
        console.print(escape(line))


def _relative(path: Path) -> str:
    """A path as the user would type it."""
    relative = os.path.relpath(path)
    return relative if len(relative) < len(str(path)) else str(path)


def _show_plan(sweep: Opened, orders: Orders, console: Console) -> None:
    plan, site = sweep.plan, sweep.site
    pending = pending_tasks(plan, Inventory(sweep.store).holds)
    outlook = look_ahead(sweep, pending)
    lines = [*outlook.lines, *outlook.warnings]
    text = describe(plan, pending, site, cost=outlook.cost, lines=lines, canary=orders.canary)
    console.print(text, markup=False, soft_wrap=True)
    if site.executor != "slurm":
        return
    from eva_hpc.cluster.submission import submission_text

    for array in make_arrays(plan, make_jobs(plan, pending, site), site, proven=set() if orders.canary else None):
        console.rule(f"sbatch script of array {array.name}: {len(array.jobs)} jobs")
        console.print(submission_text(array, site, sweep.results, plan.name), markup=False, soft_wrap=True)

"""From the words of a command to a finished sweep: load, plan, reuse, execute, watch, tables."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from eva_hpc.cluster import queue
from eva_hpc.cluster.board import Board, State
from eva_hpc.cluster.execution import survey
from eva_hpc.cluster.live import LiveDisplay, shown
from eva_hpc.config.check import check_engines
from eva_hpc.config.errors import ConfigError
from eva_hpc.config.load import load_experiment, load_site
from eva_hpc.config.site import Site
from eva_hpc.config.sweep import Experiment
from eva_hpc.plan.describe import describe
from eva_hpc.plan.jobs import make_arrays, make_jobs, pending_tasks
from eva_hpc.plan.plan import Plan, Task, make_plan
from eva_hpc.stages.registry import STAGES
from eva_hpc.store.artifacts import Store, write_atomically
from eva_hpc.store.records import write_jsonl

_SHOWN_FAILURES = 5
_SHOWN_LOG_LINES = 8


@dataclass(frozen=True)
class Request:
    """What a user asked for on the command line."""

    file: Path
    site: str | None
    recipe: str | None
    settings: tuple[str, ...]
    quick: bool
    dry_run: bool
    wait: bool


class JobsGoOn(KeyboardInterrupt):
    """The jobs go on. The same command shows how far they are, and writes the table at the end."""


def launch(request: Request, console: Console) -> bool:
    """Do what was asked; returns whether everything that was to be done is done.

    Raises:
        ConfigError: a mistake in what was asked; nothing was started.
        QueueError: Slurm does not answer.
        KeyboardInterrupt: the user, or a signal, stopped it; what was done is kept. :class:`JobsGoOn` if Slurm has the rest.
    """
    name = request.site or os.environ.get("EVA_HPC_SITE") or _this_machine()
    site = load_site(name, request.settings, known_stages=set(STAGES))
    experiment = load_experiment(
        request.file, site=site, overrides=request.settings, quick=request.quick, recipe=request.recipe
    )
    experiment = experiment.model_copy(
        update={"settings": tuple(one for one in request.settings if not one.startswith("site."))}
    )
    if not (request.site or os.environ.get("EVA_HPC_SITE")):
        missing = "Slurm" if shutil.which("nvidia-smi") else "Slurm and no GPU"
        where = f"running on this machine (site {site.name}, recipe {experiment.recipe.name})"
        console.print(f"[bold]No {missing} here: {where}.[/bold]")
    plan = make_plan(experiment)
    root = Path(site.root).absolute()
    store, results = Store(root / "store"), root / experiment.name
    if request.dry_run:
        _show_plan(plan, site, store, results, console)
        return True

    if site.executor == "slurm":
        check_engines(experiment)
        if not queue.available():
            raise ConfigError(
                f"site {site.name}: Slurm does not answer here (scontrol ping). Without a cluster, a throwaway one will do: "
                'eval "$(.venv/bin/eva-hpc devcluster up)", then --site devcluster'
            )
    try:
        results.mkdir(parents=True, exist_ok=True)
        store.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"site {site.name}: root {root}: cannot be written: {error.strerror}") from None
    with _alone(store.root) if site.executor == "local" else nullcontext():
        return _carry_out(experiment, plan, site, store, results, request.wait, console)


def _carry_out(
    experiment: Experiment, plan: Plan, site: Site, store: Store, results: Path, wait: bool, console: Console
) -> bool:
    """Reuse what is done, execute the rest, write the tables; returns as :func:`launch`."""
    for line in survey(plan, store):
        console.print(f"[bold red]set aside:[/bold red] {escape(line)}")
    pending = pending_tasks(plan, lambda identity: store.find(identity) is not None)
    board = _board(plan, store, pending)
    write_atomically(results / "experiment.json", experiment.model_dump_json(indent=2).encode())
    _say_what_is_ahead(plan, pending, board, console)
    if site.executor == "local":
        _run_here(board, site, store, results, pending, console)
    elif not _run_on_slurm(board, site, store, results, pending, wait, console):
        return True
    _show_failures(board, console)
    _write_tables(experiment, plan, store, results, console)
    return board.count(State.FAILED, State.BLOCKED, State.PENDING) == 0


def _this_machine() -> str:
    """The site where none was named: this machine, unless it has a Slurm that somebody must have meant to use.

    Raises:
        ConfigError: it has.
    """
    if queue.available():
        raise ConfigError(
            "--site: this machine has Slurm; say which site file describes it, e.g. --site h100 (sbatch/sites/h100.yaml), "
            "or --site laptop to run here"
        )
    return "laptop"


def _board(plan: Plan, store: Store, pending: list[Task]) -> Board:
    """The board with what is done already, and the mean seconds that each stage took earlier."""
    board = Board(plan)
    names = {task.id for task in pending}
    seconds: dict[str, list[float]] = {}
    for task in plan.tasks:
        artifact = store.find(task.identity)
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


def _run_here(board: Board, site: Site, store: Store, results: Path, pending: list[Task], console: Console) -> None:
    from eva_hpc.cluster.local import LocalPool, width

    with shown(LiveDisplay(board, console, site.slots, lambda task: width(task, site))):
        LocalPool(board, site, store, results).run(pending)


def _run_on_slurm(
    board: Board, site: Site, store: Store, results: Path, pending: list[Task], wait: bool, console: Console
) -> bool:
    """Submit and, if asked to, watch; returns whether all jobs have ended."""
    from eva_hpc.cluster.slurm import SlurmSweep, without_own_job

    without_own_job()
    sweep = SlurmSweep(board, site, store, results)
    with _alone(results):
        owners = sweep.submit(pending)
    jobs = len(set(owners.values()))
    if jobs:
        console.print(f"{jobs} jobs in Slurm's queue for {len(owners)} stages")
    try:
        if wait:
            with shown(LiveDisplay(board, console, max(1, min(jobs, site.slurm.max_parallel)), lambda task: 1)):
                sweep.watch(owners)
            return True
    except KeyboardInterrupt:
        raise JobsGoOn from None
    console.print(JobsGoOn.__doc__)
    return False


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Only one process at a time does this with a folder: a local sweep with its store, a submission with its results.

    Raises:
        ConfigError: another one does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "in-use.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"another sweep is at work in {folder}: wait for it, or choose another site.root") from None
        yield


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


def _write_tables(experiment: Experiment, plan: Plan, store: Store, results: Path, console: Console) -> None:
    from eva_hpc.report.aggregate import aggregate
    from eva_hpc.report.collect import collect
    from eva_hpc.report.tables import terminal_table, write_tables

    rows = collect(plan, store)
    metrics = results / "metrics.jsonl"
    write_jsonl(metrics, rows)
    summary = aggregate(rows, experiment)
    paths = write_tables(summary, experiment, results)
    console.print(terminal_table(summary, experiment), soft_wrap=False)
    for path in (*paths.values(), metrics):
        console.print(_relative(path))


def _relative(path: Path) -> str:
    """A path as the user would type it."""
    relative = os.path.relpath(path)
    return relative if len(relative) < len(str(path)) else str(path)


def _show_plan(plan: Plan, site: Site, store: Store, results: Path, console: Console) -> None:
    pending = pending_tasks(plan, lambda identity: store.find(identity) is not None)
    console.print(describe(plan, pending, site), markup=False, soft_wrap=True)
    if site.executor != "slurm":
        return
    from eva_hpc.cluster.slurm import submission_text

    for array in make_arrays(plan, make_jobs(plan, pending), site):
        console.rule(f"sbatch script of array {array.name}: {len(array.jobs)} jobs")
        console.print(submission_text(array, site, results, plan.name), markup=False, soft_wrap=True)

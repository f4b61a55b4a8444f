"""``eva-hpc logs FILE RUN [STAGE]``: what the stages of a run, or those that runs share, wrote; ``-f`` follows them."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from eva_hpc.commands.options import WORK_FAILED, File, NoSharing, Quick, RecipeName, Settings, SiteName, told_plainly

if TYPE_CHECKING:
    from eva_hpc.plan.index import Index, IndexedRun

POLL_S = 0.5
ASK_EVERY_S = 15.0


@dataclass(frozen=True)
class StageLog:
    """The log of a task, which may not be there yet; `title` says whose it is."""

    path: Path
    title: str


def logs(
    file: File,
    run: Annotated[str, typer.Argument(help="run by its name or by what is enough of it (6,1 or k=6 seed 1), or: shared")],
    stage: Annotated[Optional[str], typer.Argument(help="a stage: its logs of all rounds; default: the newest log")] = None,  # noqa: UP045
    site: SiteName = None,
    recipe: RecipeName = None,
    set_: Settings = [],  # noqa: B006
    quick: Quick = False,
    no_sharing: NoSharing = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on as they grow, until the run ends")] = False,
    rank: Annotated[Optional[int], typer.Option(help="only what this process of the stage wrote", min=0)] = None,  # noqa: UP045
    job: Annotated[bool, typer.Option("--job", help="the log of the run's Slurm job itself")] = False,
) -> None:
    """The logs of a run's stages, newest work first found; says why where there are none.

    Exit codes: 0 shown, 1 there is none yet or the run has failed, 2 a mistake in what was asked.
    """
    from eva_hpc.request import Request, open_request

    with told_plainly():
        opened = open_request(Request(file, site, recipe, tuple(set_), quick, not no_sharing))
        if not _show(opened.results, run, stage, rank, job, follow):
            raise typer.Exit(WORK_FAILED)


def _show(results: Path, words: str, stage: str | None, rank: int | None, job: bool, follow: bool) -> bool:
    """Print what was asked for; returns whether there was something, and the run, if followed, did not fail."""
    from eva_hpc.commands.run_names import SHARED, one_run
    from eva_hpc.config.errors import ConfigError
    from eva_hpc.plan.index import read_index

    index = read_index(results)
    if index is None:
        raise ConfigError(f"{results.name} was not started yet: there are no logs")
    run = None if words == SHARED else one_run(words, index.runs)
    found = job_logs(results, index, run) if job else stage_logs(results, index, run, stage)
    existing = [log for log in found if log.path.is_file()]
    if not job and stage is None and not follow:
        existing = sorted(existing, key=lambda log: log.path.stat().st_mtime_ns)[-1:]
    if follow:
        return _follow(results, run, found, rank)
    for log in existing:
        _heading(log)
        for line in _of_rank(log.path, rank):
            typer.echo(line)
    if not existing:
        typer.echo(f"no log yet: {_why_none(results, run)}", err=True)
    return bool(existing)


def stage_logs(results: Path, index: Index, run: IndexedRun | None, stage: str | None) -> list[StageLog]:
    """The logs of a run's tasks, or of those that several runs share, in the order of the plan.

    Raises:
        ConfigError: there is no such stage.
    """
    from eva_hpc.cluster.execution import log_path
    from eva_hpc.config.errors import ConfigError, did_you_mean
    from eva_hpc.plan.plan import Task

    numbers = run.tasks if run else [number for number, users in sorted(index.users.items()) if len(users) > 1]
    stages = list(dict.fromkeys(index.stage(number) for number in numbers))
    if stage is not None and stage not in stages:
        raise ConfigError(
            f"STAGE {stage!r}: no such stage of it; its stages are {', '.join(stages)}{did_you_mean(stage, stages)}"
        )
    logs = []
    for number in numbers:
        if stage in (None, index.stage(number)):
            users = tuple(user.name for user in index.users[number])
            path = log_path(results, Task.model_construct(identity=index.identity(number), runs=users))
            whose = users[0] if len(users) == 1 else f"shared by {len(users)} runs"
            logs.append(StageLog(path, f"{index.stage(number)}, {index.parts[number]}, {whose}"))
    return logs


def job_logs(results: Path, index: Index, run: IndexedRun | None) -> list[StageLog]:
    """The logs of the Slurm jobs that were submitted for a run, or for shared work, oldest first."""
    from eva_hpc.cluster.ledger import Ledger

    numbers = run.tasks if run else list(index.users)
    of_one = {index.tasks[number]: len(index.users[number]) == 1 for number in numbers}
    logs = []
    for one in Ledger(results).jobs().values():
        if any(of_one.get(task) is (run is not None) for task in one.tasks):
            for kind in ("out", "err"):
                logs.append(
                    StageLog(results / "slurm" / one.token / f"{one.id}_0_log.{kind}", f"job {one.id}, {one.name}, std{kind}")
                )
    return logs


def _follow(results: Path, run: IndexedRun | None, logs: Sequence[StageLog], rank: int | None) -> bool:
    """Print what is written to any of the logs, from the newest one's last lines on, until the run has ended."""
    from eva_hpc.cluster.sweep_status import RunState, status_of

    tail = Tail(logs, rank)
    asked = 0.0
    waits = ""
    while True:
        ended: bool | None = None
        if time.monotonic() - asked > ASK_EVERY_S or not asked:
            status = status_of(results)
            asked = time.monotonic()
            if status is not None:
                one = next((one for one in status.runs if run is not None and one.name == run.name), None)
                if one is not None and one.state not in (RunState.RUNNING, RunState.WAITING):
                    ended = one.state not in (RunState.FAILED, RunState.HELD, RunState.CANCELLED)
                elif one is None and not status.shared:
                    ended = True
                if one is not None and one.state is RunState.WAITING and one.why != waits:
                    waits = one.why
                    typer.echo(f"waiting: {waits}", err=True)
        for line in tail.read():
            typer.echo(line)
        if ended is not None:
            typer.echo(f"{run.name if run else 'shared work'}: {_outcome(results, run)}", err=True)
            return ended
        time.sleep(POLL_S)


class Tail:
    """New lines of several logs. At first the last lines of the newest one; a heading wherever another log goes on."""

    FIRST_LINES = 20

    def __init__(self, logs: Sequence[StageLog], rank: int | None = None) -> None:
        self._logs = logs
        self._rank = rank
        self._offsets = {log.path: log.path.stat().st_size for log in logs if log.path.is_file()}
        self._last: Path | None = None
        newest = max(self._offsets, key=lambda path: path.stat().st_mtime_ns, default=None)
        if newest is not None:
            lines = newest.read_bytes().splitlines(keepends=True)
            self._offsets[newest] = sum(len(line) for line in lines[: -self.FIRST_LINES])

    def read(self) -> Iterator[str]:
        """Lines that are complete and were not read yet."""
        for log in self._logs:
            try:
                with log.path.open("rb") as file:
                    file.seek(self._offsets.get(log.path, 0))
                    text = file.read()
            except FileNotFoundError:
                continue
            whole = text[: text.rfind(b"\n") + 1]
            self._offsets[log.path] = self._offsets.get(log.path, 0) + len(whole)
            lines = [line for line in whole.decode(errors="replace").splitlines() if _is_of_rank(line, self._rank)]
            if lines and log.path != self._last:
                self._last = log.path
                yield _title(log)
            yield from lines


def _of_rank(path: Path, rank: int | None) -> Iterator[str]:
    """The lines of a log, or those of one rank: in a file of its own on one machine, behind srun's label on several."""
    own = path.with_suffix(f".rank{rank}.log")
    if rank and own.is_file():
        path, rank = own, None
    for line in path.read_text(errors="replace").splitlines():
        if _is_of_rank(line, rank):
            yield line


def _is_of_rank(line: str, rank: int | None) -> bool:
    label = re.match(r"\s*(\d+): ", line)
    return rank is None or (int(label[1]) == rank if label else rank == 0)


def _heading(log: StageLog) -> None:
    typer.secho(_title(log), bold=True)


def _title(log: StageLog) -> str:
    from eva_hpc.config.yaml_file import shown

    return f"== {log.title}: {shown(log.path)}"


def _why_none(results: Path, run: IndexedRun | None) -> str:
    from eva_hpc.cluster.sweep_status import status_of

    status = status_of(results)
    if status is None or run is None:
        return "no shared stage has started here" if run is None else "the sweep was not started"
    return _words(next(one for one in status.runs if one.name == run.name))


def _outcome(results: Path, run: IndexedRun | None) -> str:
    return _why_none(results, run) if run else "nothing is at work any more"


def _words(one: object) -> str:
    from eva_hpc.cluster.sweep_status import RunStatus

    assert isinstance(one, RunStatus)
    return f"{one.state.value}{f': {one.why}' if one.why else ''} ({one.done} of {one.stages} stages done)"

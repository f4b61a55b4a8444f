"""The live display: runs by stages, what is running, time left; without a terminal, a line now and then."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from eva_hpc.cluster.board import Board, State
from eva_hpc.plan.plan import Plan, Task

_GLYPHS = {
    State.PENDING: ("·", "dim"),
    State.RUNNING: ("▶", "bold yellow"),
    State.DONE: ("●", "green"),
    State.REUSED: ("●", "cyan"),
    State.UNNEEDED: ("○", "cyan"),
    State.FAILED: ("✗", "bold red"),
    State.BLOCKED: ("–", "red"),
}
_MOST_RUNS = 30
_LINE_EVERY_S = 10.0


class LiveDisplay:
    """Shows a board until closed. The estimate of the time left needs the slots there are, and how many a task takes."""

    def __init__(self, board: Board, console: Console, slots: int, width: Callable[[Task], int]) -> None:
        self.board = board
        self.console = console
        self.slots = slots
        self.width = width
        self._began = time.monotonic()

    def __rich__(self) -> RenderableType:
        """The whole screen."""
        return Group(self._runs(), self._running(), self._summary())

    def line(self) -> str:
        """The summary in one line of plain text."""
        return self._summary().plain

    def _runs(self) -> Table:
        plan = self.board.plan
        groups = parts(plan)
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        table.add_column(f"{len(plan.runs)} runs")
        for group in groups:
            table.add_column(group)
        finished = {run.name for run in plan.runs if self._finished(run.name)}
        shown = {run.name for run in sorted(plan.runs, key=lambda run: run.name in finished)[:_MOST_RUNS]}
        for run in plan.runs:
            if run.name not in shown:
                continue
            cells = {group: Text() for group in groups}
            for task in plan.tasks_of(run.name):
                cells.setdefault(task.part, Text()).append(*_GLYPHS[self.board.entries[task.id].state])
            table.add_row(run.name.replace(",", ", "), *cells.values())
        if others := len(plan.runs) - len(shown):
            table.caption = f"{others} further runs are not shown; {len(finished)} of all runs are finished"
        return table

    def _finished(self, run: str) -> bool:
        return all(
            self.board.entries[task.id].state in (State.DONE, State.REUSED, State.UNNEEDED)
            for task in self.board.plan.tasks_of(run)
        )

    def _running(self) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
        for task in self.board.in_state(State.RUNNING):
            entry = self.board.entries[task.id]
            seconds = time.monotonic() - entry.started if entry.started is not None else 0.0
            share = entry.progress()
            table.add_row(
                Text("▶ " + task.stage, "yellow"),
                task.runs[0].replace(",", ", ") if len(task.runs) == 1 else f"shared by {len(task.runs)} runs",
                task.part,
                ProgressBar(total=1.0, completed=share, width=20),
                f"{share:.0%}",
                f"{seconds:.0f} s",
            )
        return table

    def _summary(self) -> Text:
        board = self.board
        done = board.count(State.DONE)
        parts = [f"{done + board.count(State.REUSED, State.UNNEEDED)} of {len(board.entries)} stages done"]
        if reused := board.count(State.REUSED, State.UNNEEDED):
            parts.append(f"{reused} from earlier")
        parts.append(f"{board.count(State.RUNNING)} running")
        if failed := board.count(State.FAILED):
            parts.append(f"{failed} failed, {board.count(State.BLOCKED)} blocked")
        if board.note:
            parts.append(board.note)
        parts.append(f"{clock(time.monotonic() - self._began)} so far")
        left = board.seconds_left(self.slots, self.width)
        parts.append(f"about {clock(left)} left" if left is not None else "time left not known yet")
        return Text(", ".join(parts), "bold")


@contextmanager
def shown(display: LiveDisplay) -> Iterator[None]:
    """Show the display while the body runs."""
    if display.console.is_terminal:
        with Live(display, console=display.console, refresh_per_second=4, transient=True):
            yield
    else:
        with _Lines(display):
            yield


class _Lines:
    """Prints the summary line every few seconds, for logs and pipes."""

    def __init__(self, display: LiveDisplay) -> None:
        self._display = display
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._print, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._closed.set()
        self._thread.join()

    def _print(self) -> None:
        while not self._closed.wait(_LINE_EVERY_S):
            self._display.console.print(self._display.line(), highlight=False)


def parts(plan: Plan) -> list[str]:
    """The parts of a run in the order in which they are done; evaluation, whose questions can be had early, is the last."""
    found = dict.fromkeys(task.part for task in plan.tasks)
    return sorted(found, key=lambda part: part == "evaluation")


def clock(seconds: float) -> str:
    """Seconds as people read them: 45 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"

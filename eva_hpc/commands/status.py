"""``eva-hpc status FILE``: one screen about a sweep; ``--watch`` keeps it fresh, ``--json`` is for other programs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from eva_hpc.commands.options import WORK_FAILED, File, NoSharing, Quick, RecipeName, Settings, SiteName, told_plainly

if TYPE_CHECKING:
    from rich.console import RenderableType

    from eva_hpc.cluster.sweep_status import SweepStatus
    from eva_hpc.request import Opened

REFRESH_S = 3.0
SLOWEST_S = 60.0


def status(
    file: File,
    site: SiteName = None,
    recipe: RecipeName = None,
    set_: Settings = [],  # noqa: B006
    quick: Quick = False,
    no_sharing: NoSharing = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="refresh until all has ended; Ctrl-C leaves it running")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="everything, as JSON")] = False,
) -> None:
    """How far a sweep is: runs, what waits and why, what failed and what happens next.

    Exit codes: 0 all is well, 1 something failed or is held, 2 a mistake in what was asked.
    """
    from rich.console import Console

    from eva_hpc.cluster.sweep_status import RunState, status_of
    from eva_hpc.commands.status_screen import screen
    from eva_hpc.request import Request, open_request

    with told_plainly():
        opened = open_request(Request(file, site, recipe, tuple(set_), quick, not no_sharing))
        console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
        found = status_of(opened.results)
        if found is None:
            console.print(f"{opened.experiment.name} was not started yet at site {opened.site.name}: {_runs(opened)} to do")
            return
        if as_json:
            sys.stdout.write(to_json(found) + "\n")
        elif watch and console.is_terminal:
            found = _watch(found, lambda: status_of(opened.results), lambda one: screen(one, opened.site.name), console)
        else:
            console.print(screen(found, opened.site.name))
        if found.counts[RunState.FAILED] or found.counts[RunState.HELD]:
            raise typer.Exit(WORK_FAILED)


def to_json(status: SweepStatus) -> str:
    """A status as one JSON object."""
    import orjson

    return orjson.dumps(status, default=str, option=orjson.OPT_INDENT_2).decode()


def _runs(opened: Opened) -> str:
    return f"{len(opened.experiment.points) * len(opened.experiment.sweep.seeds)} runs"


def _watch(
    found: SweepStatus, look: Callable[[], SweepStatus | None], draw: Callable[[SweepStatus], RenderableType], console: object
) -> SweepStatus:
    """Show the screen again and again until nothing is active; less and less often while Slurm does not answer."""
    from rich.console import Console
    from rich.live import Live

    assert isinstance(console, Console)
    pause = REFRESH_S
    with Live(draw(found), console=console, auto_refresh=False, vertical_overflow="ellipsis") as live:
        while found.active:
            began = time.monotonic()
            time.sleep(pause)
            found = look() or found
            live.update(draw(found), refresh=True)
            took = time.monotonic() - began - pause
            # A look must cost little of what it looks at; a controller that is away is not to be asked all the time.
            pause = min(SLOWEST_S, max(REFRESH_S, 5 * took, 2 * pause if found.notes else 0.0))
    return found

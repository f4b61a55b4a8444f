"""``python -m eva_hpc.sweep FILE``: plan a sweep, run or resume it, watch it, and write its tables."""

from __future__ import annotations

import signal
import sys
from typing import Annotated, Optional

import typer

from eva_hpc.commands.options import (
    INTERRUPTED,
    WORK_FAILED,
    File,
    NoSharing,
    Quick,
    RecipeName,
    Settings,
    SiteName,
    told_plainly,
)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def sweep(
    file: File,
    site: SiteName = None,
    recipe: RecipeName = None,
    set_: Settings = [],  # noqa: B006
    quick: Quick = False,
    no_sharing: NoSharing = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show the plan and what would be submitted, then stop")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="on Slurm: stay until all jobs have ended")] = True,
    canary: Annotated[
        bool, typer.Option("--canary/--no-canary", help="on Slurm: the first job of an array goes ahead of the others")
    ] = True,
    max_parallel: Annotated[
        Optional[int],  # noqa: UP045 - typer reads it at run time
        typer.Option(help="on Slurm: tasks of one array that may run at once", min=1),
    ] = None,
    max_gpu_hours: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="refuse to start what is estimated to cost more", min=0),
    ] = None,
) -> None:
    """Run every (grid point, seed) of a sweep, and write the table. The same command again goes on where it stopped.

    Exit codes: 0 all done, 1 some work failed, 2 a mistake in what was asked, 130 interrupted.
    """
    from rich.console import Console

    from eva_hpc.launch import JobsGoOn, Orders, launch
    from eva_hpc.request import Request

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 140)
    limit = [f"site.slurm.max_parallel={max_parallel}"] if max_parallel else []
    with told_plainly():
        request = Request(file, site, recipe, (*set_, *limit), quick, sharing=not no_sharing)
        try:
            ended_well = launch(request, Orders(dry_run, wait, canary, max_gpu_hours), console)
        except JobsGoOn as going_on:
            console.print(f"\n{going_on.__doc__}")
            raise typer.Exit(INTERRUPTED) from None
        except KeyboardInterrupt:
            console.print("\n[bold]Stopped.[/bold] What was done is kept: the same command goes on from here.")
            raise typer.Exit(INTERRUPTED) from None
    if not ended_well:
        raise typer.Exit(WORK_FAILED)


if __name__ == "__main__":
    app(prog_name="python -m eva_hpc.sweep")

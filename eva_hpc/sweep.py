"""``python -m eva_hpc.sweep FILE``: plan a sweep, run or resume it, watch it, and write its tables."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

USERS_MISTAKE = 2
WORK_FAILED = 1
INTERRUPTED = 130


@app.command()
def sweep(
    file: Annotated[Path, typer.Argument(help="sweep file, e.g. sweeps/responses_per_prompt.yaml")],
    site: Annotated[
        Optional[str],  # noqa: UP045 - typer reads it at run time
        typer.Option(help="site by name (sbatch/sites/NAME.yaml) or file; default: EVA_HPC_SITE, else this machine"),
    ] = None,
    recipe: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="another recipe than the site's scale gives: lab, full or a file"),
    ] = None,
    set_: Annotated[
        list[str], typer.Option("--set", help="KEY=VALUE with KEY below recipe., sweep. or site.; may be repeated")
    ] = [],  # noqa: B006
    quick: Annotated[bool, typer.Option("--quick", help="fewer seeds and prompts, as the recipe says")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show the plan and what would be submitted, then stop")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="on Slurm: stay until all jobs have ended")] = True,
) -> None:
    """Run every (grid point, seed) of a sweep, and write the table. The same command again goes on where it stopped.

    Exit codes: 0 all done, 1 some work failed, 2 a mistake in what was asked, 130 interrupted.
    """
    from rich.console import Console

    from eva_hpc.cluster.queue import QueueError
    from eva_hpc.config.errors import ConfigError
    from eva_hpc.launch import JobsGoOn, Request, launch

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 140)
    try:
        ended_well = launch(Request(file, site, recipe, tuple(set_), quick, dry_run, wait), console)
    except ConfigError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(str(error), markup=False)
        raise typer.Exit(USERS_MISTAKE) from None
    except QueueError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"Slurm does not answer: {error}", markup=False)
        raise typer.Exit(WORK_FAILED) from None
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

"""``eva-hpc prefetch FILE``: bring what a sweep needs from the Hugging Face hub into the cache, for jobs without network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from eva_hpc.commands.options import WORK_FAILED, File, Quick, RecipeName, Settings, SiteName, told_plainly

if TYPE_CHECKING:
    from rich.console import Console

    from eva_hpc.config.hub import Need


def prefetch(
    file: File,
    site: SiteName = None,
    recipe: RecipeName = None,
    set_: Settings = [],  # noqa: B006
    quick: Quick = False,
) -> None:
    """Fetch the models and data sets that a sweep names on the hub, on a machine with network.

    They go into the cache of the Hugging Face libraries (HF_HOME). The same command again goes on where it stopped, and
    fetches nothing twice.

    Exit codes: 0 all there, 1 something could not be fetched, 2 a mistake in what was asked.
    """
    from rich.console import Console

    from eva_hpc.config.hub import HubUnreachable, missing, needs
    from eva_hpc.request import Request, open_request

    console = Console(highlight=False, soft_wrap=True)
    with told_plainly():
        experiment = open_request(Request(file, site, recipe, tuple(set_), quick)).experiment
        wanted = needs(experiment)
        if not wanted:
            console.print("nothing of this sweep is on the hub")
            return
        try:
            for need in wanted:
                _fetch(need, console)
        except HubUnreachable as error:
            Console(stderr=True, highlight=False, soft_wrap=True).print(str(error), markup=False)
            raise typer.Exit(WORK_FAILED) from None
        if problems := missing(experiment):
            console.print("\n".join(problems), markup=False)
            raise typer.Exit(WORK_FAILED)
        console.print(f"all {len(wanted)} in {_cache()}", markup=False)


def _fetch(need: Need, console: Console) -> None:
    """Fetch one, with a bar on a terminal, and say what is there then."""
    from rich.filesize import decimal
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from eva_hpc.config.hub import fetch, listing

    listed = listing(need)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        bar = bars.add_task(need.name, total=listed.size)
        fetch(need, listed, lambda done: bars.update(bar, completed=done))
    size = f"{len(listed.files)} files, {decimal(listed.size)}"
    console.print(f"{need.section}: {need.kind} {need.name}, commit {listed.commit}: {size}", markup=False)
    if need.revision is None:
        advice = f"  no revision is given; to name exactly this one: {need.section}.revision: {listed.commit}"
        console.print(advice, markup=False)


def _cache() -> str:
    from huggingface_hub import constants

    return str(constants.HF_HOME)

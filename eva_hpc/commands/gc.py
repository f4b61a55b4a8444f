"""``eva-hpc gc``: remove artifacts, caches and code that no sweep refers to, after showing them."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from eva_hpc.commands.options import WORK_FAILED, SiteName, told_plainly

if TYPE_CHECKING:
    from eva_hpc.store.garbage import Garbage

_SHOWN = 20


def gc(
    site: SiteName = None,
    root: Annotated[
        Optional[Path],  # noqa: UP045 - typer reads it at run time
        typer.Option("--root", help="the folder itself, instead of the site's root"),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="remove without asking")] = False,
) -> None:
    """Show, and with --yes remove, what no sweep below a site's root refers to.

    A sweep refers to all that its plans name, finished or not, as long as its folder of results is there: remove the folder of
    a sweep to give up what only it needs. What a live job works on stays.

    Exit codes: 0 shown or removed, 1 it cannot be told what is needed, or something could not be removed, 2 a mistake.
    """
    with told_plainly():
        from rich.filesize import decimal

        from eva_hpc.cluster.owners import is_alive
        from eva_hpc.store.garbage import UnreadablePlans, garbage, needed, remove

        folder = _root(site, root)
        alive = functools.cache(is_alive)
        try:
            found = garbage(folder, needed(folder), alive)
            if not found:
                typer.echo(f"nothing to remove in {folder}")
                return
            typer.echo(_shown(found))
            if not yes and not (sys.stdin.isatty() and typer.confirm("remove them?", default=False)):
                typer.echo("nothing was removed; --yes removes it")
                return
            gone, problems = remove(folder, found, functools.cache(is_alive))
        except UnreadablePlans as error:
            typer.echo(f"nothing was removed: {error}", err=True)
            raise typer.Exit(WORK_FAILED) from None
        except OSError as error:
            typer.echo(f"nothing was removed: {folder}: {error.strerror}", err=True)
            raise typer.Exit(WORK_FAILED) from None
        typer.echo(f"removed {len(gone)}, {decimal(sum(one.bytes for one in gone))}")
        if left := len(found) - len(gone) - len(problems):
            typer.echo(f"{left} are needed by now and stay")
        for problem in problems:
            typer.echo(problem, err=True)
        if problems:
            raise typer.Exit(WORK_FAILED)


def _root(site: str | None, root: Path | None) -> Path:
    """The folder that is meant.

    Raises:
        ConfigError: both are named, there is no such site, or there is nothing in it.
    """
    from eva_hpc.config.errors import ConfigError
    from eva_hpc.config.load import load_site
    from eva_hpc.stages.registry import STAGES

    if site and root:
        raise ConfigError("--root: found together with --site; must be one of the two")
    name = site or os.environ.get("EVA_HPC_SITE") or "laptop"
    folder = (root or Path(load_site(name, known_stages=set(STAGES)).root)).absolute()
    if not (folder / "store").is_dir():
        where = "--root" if root else f"site {name}: root"
        raise ConfigError(f"{where}: found {folder}, which has no store; must be the root of a site that has run sweeps")
    return folder


def _shown(found: Sequence[Garbage]) -> str:
    """Sums by kind, and the largest."""
    from rich.filesize import decimal
    from tabulate import tabulate

    sums: dict[str, list[int]] = {}
    for one in found:
        sums.setdefault(one.why, []).append(one.bytes)
    rows = [[why, len(sizes), decimal(sum(sizes))] for why, sizes in sums.items()]
    rows.append(["all", len(found), decimal(sum(one.bytes for one in found))])
    largest = sorted(found, key=lambda one: -one.bytes)
    lines = [f"{decimal(one.bytes):>10}  {one.why}  {one.path}" for one in largest[:_SHOWN]]
    if len(largest) > _SHOWN:
        lines.append(f"… and {len(largest) - _SHOWN} smaller ones")
    return "\n".join([*lines, "", tabulate(rows, ["kind", "number", "size"])])

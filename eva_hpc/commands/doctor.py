"""``eva-hpc doctor [FILE]``: check a site before the first submission."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from eva_hpc.commands.options import WORK_FAILED, Quick, RecipeName, Settings, SiteName, told_plainly

if TYPE_CHECKING:
    from rich.console import Console

    from eva_hpc.cluster.doctor import Examination

_COLOURS = {"ok": "green", "warning": "yellow", "problem": "bold red"}


def doctor(
    file: Annotated[
        Optional[Path],  # noqa: UP045 - typer reads it at run time
        typer.Argument(help="sweep file: its jobs, models and data sets are checked too"),
    ] = None,
    site: SiteName = None,
    recipe: RecipeName = None,
    set_: Settings = [],  # noqa: B006
    quick: Quick = False,
    probe: Annotated[bool, typer.Option("--probe/--no-probe", help="run small probe jobs on compute nodes")] = True,
    json_: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Check a site: Slurm, partitions, limits, the shared file system, compute nodes and their software.

    Submits small probe jobs, and leaves none behind. Exit codes: 0 no problem found, 1 problems, 2 a mistake in what was asked.
    """
    from rich.console import Console

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # probe jobs are cancelled then too
    with told_plainly():
        console = Console(highlight=False, soft_wrap=True)
        examination = _examined(file, site, recipe, tuple(set_), quick, probe)
        if json_:
            _print_json(examination)
        else:
            _show(examination, console)
    if not examination.works:
        raise typer.Exit(WORK_FAILED)


def _examined(
    file: Path | None, site: str | None, recipe: str | None, settings: tuple[str, ...], quick: bool, probe: bool
) -> Examination:
    import os

    from rich.console import Console

    from eva_hpc.cluster.doctor import examine
    from eva_hpc.cluster.submission import without_others_words
    from eva_hpc.config.errors import ConfigError
    from eva_hpc.config.load import load_site
    from eva_hpc.request import Request, open_request
    from eva_hpc.stages.registry import STAGES

    with Console(stderr=True).status("looking") as status:
        note = status.update
        if file is not None:
            opened = open_request(Request(file, site, recipe, settings, quick))
            without_others_words(opened.site)
            return examine(opened.site, opened.experiment, opened.plan, probe, note)
        named = site or os.environ.get("EVA_HPC_SITE")
        if named is None:
            raise ConfigError("--site: say which site is to be checked, e.g. --site h100 (sbatch/sites/h100.yaml)")
        alone = load_site(named, settings, known_stages=set(STAGES))
        without_others_words(alone)
        return examine(alone, probe=probe, note=note)


def _show(examination: Examination, console: Console) -> None:
    from rich.text import Text

    for finding in examination.findings:
        level = finding.level.value
        line = Text.assemble((f"{level:8}", _COLOURS[level]), f"{finding.check}: {finding.found}")
        if level == "ok" and finding.means:
            line.append(f" ({finding.means})")
        console.print(line)
        if level != "ok":
            for text in filter(None, (finding.means, finding.do and f"-> {finding.do}")):
                console.print(Text(f"{'':8}{text}"))
    counts = {level: sum(1 for one in examination.findings if one.level.value == level) for level in _COLOURS}
    console.print()
    if examination.degrades:
        console.print("What degrades here:")
        for text in examination.degrades:
            console.print(Text(f"  - {text}"))
    else:
        console.print("Nothing degrades here.")
    console.print(f"{counts['ok']} ok, {counts['warning']} warnings, {counts['problem']} problems", markup=False)


def _print_json(examination: Examination) -> None:
    from dataclasses import asdict

    import orjson

    content = {
        "site": examination.site,
        "works": examination.works,
        "findings": [asdict(finding) for finding in examination.findings],
        "degrades": examination.degrades,
    }
    typer.echo(orjson.dumps(content, option=orjson.OPT_INDENT_2).decode())

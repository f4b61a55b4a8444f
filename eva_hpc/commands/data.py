"""``eva-hpc data …``: the official files of the benchmarks. `fetch` brings them to this machine, `list` shows what is there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from eva_hpc.commands.options import WORK_FAILED, told_plainly

if TYPE_CHECKING:
    from rich.console import Console

    from eva_hpc.benchmarks.official.data_folder import Found
    from eva_hpc.benchmarks.official.fetch import Fetched, Progress

app = typer.Typer(help="The official files of the benchmarks.", no_args_is_help=True)

DEFAULT = ("alpaca_eval", "arena_hard", "mt_bench")

Sets = Annotated[
    Optional[list[str]],  # noqa: UP045 - typer reads it at run time
    typer.Argument(
        metavar="[BENCHMARK]...", help="alpaca_eval, arena_hard (v0.1), arena_hard_v2 (v2.0), mt_bench; default: all but v2.0"
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="as one JSON object")]


@app.command()
def fetch(
    benchmarks: Sets = None,
    from_: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--from", metavar="DIR", help="take copies from this folder, of any layout, plain or .gz; no network"),
    ] = None,
    to: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--to", metavar="DIR", help="default: EVA_HPC_DATA, else eva_hpc/data in the user's cache folder"),
    ] = None,
    calibration: Annotated[
        bool, typer.Option("--calibration", help="also leaderboards, and answers of models on them, to calibrate a judge")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Bring the official files of benchmarks to this machine and check them. What is there and right is not fetched again.

    Exit codes: 0 all there, 1 something could not be had, 2 a mistake in what was asked.
    """
    with told_plainly():
        from eva_hpc.benchmarks.official.catalogue import files_of
        from eva_hpc.benchmarks.official.data_folder import data_folder
        from eva_hpc.benchmarks.official.fetch import download, take

        files = files_of(benchmarks or DEFAULT, calibration)
        folder = to.expanduser().absolute() if to else data_folder()
        results: list[Fetched] = []
        with _bars() as (console, progress):
            for result in take(files, from_.expanduser(), folder) if from_ else download(files, folder, progress):
                if not as_json:
                    told = result.problem in [earlier.problem for earlier in results]  # once that a server cannot be reached
                    console.print(_line(result, None if told else result.problem), markup=False)
                results.append(result)
        failed = any(result.problem for result in results)
        if as_json:
            _print_json({"folder": str(folder), "complete": not failed, "files": [_fetched_json(result) for result in results]})
        else:
            typer.echo(_summary(results, folder, data_folder(), from_))
    if failed:
        raise typer.Exit(WORK_FAILED)


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """Show every official file: what it is for, whether it is there, its licence and its home.

    Exit codes: 0 shown, 2 a mistake in what was asked.
    """
    with told_plainly():
        from eva_hpc.benchmarks.official.catalogue import CATALOGUE
        from eva_hpc.benchmarks.official.data_folder import data_folder, look

        folder = data_folder()
        found = [look(file, folder) for file in CATALOGUE]
        if as_json:
            _print_json({"folder": str(folder), "files": [_found_json(one) for one in found]})
        else:
            typer.echo(_table(found, folder))


@contextmanager
def _bars() -> Iterator[tuple[Console, Progress]]:
    """A console for lines, and bars of downloads below them, on a terminal only."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    console = Console(highlight=False, soft_wrap=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bars(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        bar = bars.add_task("", visible=False)
        yield (
            console,
            lambda file, done, total: bars.update(bar, description=file.path, completed=done, total=total, visible=True),
        )


def _line(result: Fetched, problem: str | None) -> str:
    found = result.found
    state = {"official": "there", "stand-in": "a stand-in is there", "absent": "MISSING", "other": "WRONG CONTENT"}[found.state]
    state = f"{result.how} from {result.source}" if result.how else state
    lines = [f"{found.file.path}: {state}{f': {problem}' if problem else ''}"]
    lines += [f"  {found.note}"] if found.note else []
    lines += [f"  another content lay there; it is kept as {result.replaced}"] if result.replaced else []
    return "\n".join(lines)


def _summary(results: list[Fetched], folder: Path, usual: Path, source: Path | None) -> str:
    """How many are there, what is missing, and what to do about it."""
    lacking = [result.found.file for result in results if result.problem]
    stand_ins = sum(result.found.state == "stand-in" for result in results)
    there = sum(result.found.usable for result in results)
    lines = [f"{there} of {len(results)} files in {folder}{f', {stand_ins} of them stand-ins' if stand_ins else ''}"]
    if folder != usual:
        lines.append(f"they are found there with EVA_HPC_DATA={folder}")
    if lacking:
        lines.append(f"could not be had: {', '.join(file.path for file in lacking)}")
        words = ["eva-hpc data fetch", *dict.fromkeys(file.set for file in lacking)]
        words += ["--calibration"] if any(file.calibration for file in lacking) else []
        command = " ".join(words)
        lines.append(
            f"without --from they are downloaded: {command}"
            if source
            else "the same command tries again. Without network, copies from any folder are taken, e.g. from a clone of the "
            f"repository or the data folder of another machine: {command} --from DIR"
        )
    return "\n".join(lines)


def _table(found: list[Found], folder: Path) -> str:
    from rich.filesize import decimal
    from tabulate import tabulate

    rows = [
        (
            one.file.path,
            one.file.role + (", calibration" if one.file.calibration else ""),
            decimal(one.path.stat().st_size) if one.usable else decimal(one.file.size) if one.file.size else "",
            one.state,
            one.file.licence,
        )
        for one in found
    ]
    notes = [one.note if one.state == "stand-in" else f"{one.path}: {one.note}" for one in found if one.note]
    homes = dict.fromkeys(_home(one.file.url) for one in found)
    table = tabulate(rows, headers=("file", "for", "size", "state", "licence"), disable_numparse=True)
    return "\n".join([f"data folder: {folder}", "", table, "", *notes, *(f"from {home}" for home in homes)])


def _home(url: str) -> str:
    """Repository and commit: ``https://github.com/OWNER/NAME at COMMIT``."""
    owner_and_name, _, rest = url.partition("/resolve/")
    if rest:
        return f"{owner_and_name} at {rest.split('/')[0]}"
    owner, name, commit = url.removeprefix("https://raw.githubusercontent.com/").split("/")[:3]
    return f"https://github.com/{owner}/{name} at {commit}"


def _found_json(found: Found) -> dict[str, Any]:
    file = found.file
    return {
        "benchmark": file.set,
        "file": file.path,
        "path": str(found.path),
        "role": file.role,
        "model": file.model,
        "calibration": file.calibration,
        "state": found.state,
        "note": found.note,
        "size": file.size,
        "checksum": file.checksum,
        "licence": file.licence,
        "url": file.url,
    }


def _fetched_json(result: Fetched) -> dict[str, Any]:
    return _found_json(result.found) | {
        "how": result.how,
        "source": result.source,
        "replaced": str(result.replaced) if result.replaced else None,
        "problem": result.problem,
    }


def _print_json(content: dict[str, Any]) -> None:
    import orjson

    typer.echo(orjson.dumps(content, option=orjson.OPT_INDENT_2).decode())

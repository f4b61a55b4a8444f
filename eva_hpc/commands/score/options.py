"""The words that all `eva-hpc score` commands understand, and how they answer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from eva_hpc.benchmarks.statistics.coverage import LEAST_COVERAGE
from eva_hpc.commands.options import WORK_FAILED

AsJson = Annotated[bool, typer.Option("--json", help="as one JSON object")]
MinCoverage = Annotated[
    float, typer.Option("--min-coverage", min=0.0, max=1.0, help="no number below this share of judged questions")
]
Force = Annotated[bool, typer.Option("--force", help="print numbers whatever the coverage")]
Questions = Annotated[
    Optional[Path],  # noqa: UP045 - typer reads it at run time
    typer.Option("--questions", help="the question file: coverage then counts its questions, not those of the judgments"),
]
DEFAULT_COVERAGE = LEAST_COVERAGE


def answer(numbers: dict[str, Any], as_json: bool, text: str, refused: bool) -> None:
    """Print the numbers, as JSON or as text; exit with 1 if any was refused."""
    if as_json:
        import orjson

        typer.echo(orjson.dumps(numbers, option=orjson.OPT_INDENT_2).decode())
    else:
        typer.echo(text)
    if refused:
        raise typer.Exit(WORK_FAILED)

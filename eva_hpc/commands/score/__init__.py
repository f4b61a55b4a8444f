"""``eva-hpc score …``: numbers from files of judgments, by the official arithmetic. Each benchmark is a file of its own."""

from __future__ import annotations

import typer

app = typer.Typer(help="Numbers from judgments, by the official arithmetic of each benchmark.", no_args_is_help=True)

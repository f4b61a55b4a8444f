"""``eva-hpc score …``: numbers from files of judgments, by the official arithmetic. Each benchmark is a file of its own."""

from __future__ import annotations

import typer

from eva_hpc.commands.score.alpaca_eval import alpaca_eval
from eva_hpc.commands.score.arena_hard import arena_hard
from eva_hpc.commands.score.calibrate import calibrate
from eva_hpc.commands.score.compare import compare
from eva_hpc.commands.score.mt_bench import mt_bench

app = typer.Typer(help="Numbers from judgments, by the official arithmetic of each benchmark.", no_args_is_help=True)
for command in (alpaca_eval, arena_hard, mt_bench, compare, calibrate):
    app.command(command.__name__)(command)  # alpaca_eval, as everywhere: typer would say alpaca-eval

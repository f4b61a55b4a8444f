"""``eva-hpc …`` and ``python -m eva_hpc …``: the commands around a sweep. Each is a file of its own in `commands/`."""

from __future__ import annotations

import typer

from eva_hpc.commands.cancel import cancel
from eva_hpc.commands.curriculum import curriculum
from eva_hpc.commands.data import app as data
from eva_hpc.commands.devcluster import app as devcluster
from eva_hpc.commands.doctor import doctor
from eva_hpc.commands.explain import explain
from eva_hpc.commands.gc import gc
from eva_hpc.commands.judge import judge
from eva_hpc.commands.logs import logs
from eva_hpc.commands.plan import plan
from eva_hpc.commands.prefetch import prefetch
from eva_hpc.commands.score import app as score
from eva_hpc.commands.status import status
from eva_hpc.sweep import sweep

app = typer.Typer(
    help="Ablations of eva on Slurm clusters.", no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None
)
for command in (doctor, prefetch, plan, sweep, status, logs, explain, cancel, gc, judge, curriculum):
    app.command()(command)
for name, group in {"score": score, "data": data, "devcluster": devcluster}.items():
    app.add_typer(group, name=name)


def main() -> None:
    """Entry point."""
    app(prog_name="eva-hpc")

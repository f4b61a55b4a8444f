"""``eva-hpc …`` and ``python -m eva_hpc …``: the commands around a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from eva_hpc.sweep import WORK_FAILED, sweep

app = typer.Typer(
    help="Ablations of eva on Slurm clusters.", no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None
)
app.command("sweep")(sweep)

devcluster = typer.Typer(help="A throwaway Slurm cluster on this machine, for trying and testing.", no_args_is_help=True)
app.add_typer(devcluster, name="devcluster")

Directory = Annotated[
    Optional[Path],  # noqa: UP045 - typer reads it at run time
    typer.Option(help="where the cluster keeps its files; one cluster per directory"),
]


@devcluster.command()
def up(
    directory: Directory = None,
    nodes: Annotated[int, typer.Option(help="pretended nodes", min=1)] = 4,
    cpus: Annotated[int, typer.Option(help="pretended CPUs per node", min=1)] = 16,
    gpus: Annotated[int, typer.Option(help="pretended GPUs per node", min=0)] = 8,
) -> None:
    """Start the cluster, or say that it runs already. Prints the line that points Slurm's commands at it."""
    from eva_hpc.cluster.devcluster import DevclusterError
    from eva_hpc.cluster.devcluster import up as start

    try:
        cluster = start(directory, nodes=nodes, cpus_per_node=cpus, gpus_per_node=gpus)
    except DevclusterError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(WORK_FAILED) from None
    for name, value in cluster.environment().items():
        typer.echo(f"export {name}={value}")


@devcluster.command()
def down(directory: Directory = None) -> None:
    """Cancel the cluster's jobs and stop it."""
    from eva_hpc.cluster.devcluster import down as stop

    typer.echo("stopped" if stop(directory) else "no cluster is running")


@devcluster.command()
def status(directory: Directory = None) -> None:
    """Show the cluster's daemons and nodes."""
    from eva_hpc.cluster.devcluster import status as look

    state = look(directory)
    typer.echo(str(state.directory))
    for name, pid in state.daemons.items():
        typer.echo(f"  {name}: {f'process {pid}' if pid else 'not running'}")
    for node, condition in state.nodes.items():
        typer.echo(f"  {node}: {condition}")
    if not any(state.daemons.values()):
        typer.echo("no cluster is running: eva-hpc devcluster up")


def main() -> None:
    """Entry point."""
    app(prog_name="eva-hpc")

"""``eva-hpc devcluster up|status|down``: a throwaway Slurm cluster on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from eva_hpc.commands.options import USERS_MISTAKE, WORK_FAILED

app = typer.Typer(help="A throwaway Slurm cluster on this machine, for trying and testing.", no_args_is_help=True)

Directory = Annotated[
    Optional[Path],  # noqa: UP045 - typer reads it at run time
    typer.Option(help="where the cluster keeps its files; one cluster per directory"),
]


@app.command()
def up(
    directory: Directory = None,
    nodes: Annotated[int, typer.Option(help="pretended nodes", min=1)] = 4,
    cpus: Annotated[int, typer.Option(help="pretended CPUs per node", min=1)] = 16,
    gpus: Annotated[int, typer.Option(help="pretended GPUs per node", min=0)] = 8,
    accounting: Annotated[bool, typer.Option("--accounting", help="with a database, so that sacct and sacctmgr work")] = False,
    enforce: Annotated[bool, typer.Option("--enforce", help="limits set by sacctmgr hold; needs --accounting")] = False,
    option: Annotated[
        list[str], typer.Option(metavar="NAME=VALUE", help="a line of slurm.conf, such as MaxArraySize=11; may be repeated")
    ] = [],  # noqa: B006
) -> None:
    """Start the cluster, or say that it runs already. Prints the line that points Slurm's commands at it."""
    from eva_hpc.cluster.devcluster import DevclusterError
    from eva_hpc.cluster.devcluster import up as start

    for line in option:
        if "=" not in line:
            typer.echo(f"--option {line}: NAME=VALUE is needed, such as MaxArraySize=11", err=True)
            raise typer.Exit(USERS_MISTAKE)
    options = dict(line.split("=", 1) for line in option)
    try:
        cluster = start(
            directory, nodes, cpus_per_node=cpus, gpus_per_node=gpus, accounting=accounting, enforce=enforce, options=options
        )
    except DevclusterError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(WORK_FAILED) from None
    for name, value in cluster.environment().items():
        typer.echo(f"export {name}={value}")


@app.command()
def down(directory: Directory = None) -> None:
    """Cancel the cluster's jobs and stop it."""
    from eva_hpc.cluster.devcluster import down as stop

    typer.echo("stopped" if stop(directory) else "no cluster is running")


@app.command()
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

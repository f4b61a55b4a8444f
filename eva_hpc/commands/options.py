"""The words that every command about a sweep understands, and what its exit codes mean."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Optional

import typer

USERS_MISTAKE = 2
WORK_FAILED = 1
INTERRUPTED = 130

File = Annotated[Path, typer.Argument(help="sweep file, e.g. sweeps/responses_per_prompt.yaml")]
SiteName = Annotated[
    Optional[str],  # noqa: UP045 - typer reads it at run time
    typer.Option("--site", help="site by name (sbatch/sites/NAME.yaml) or file; default: EVA_HPC_SITE, else this machine"),
]
RecipeName = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--recipe", help="another recipe than the site's scale gives: lab, full or a file"),
]
Settings = Annotated[
    list[str], typer.Option("--set", help="KEY=VALUE with KEY below recipe., sweep. or site.; may be repeated")
]
Quick = Annotated[bool, typer.Option("--quick", help="fewer seeds and prompts, as the recipe says")]
NoSharing = Annotated[bool, typer.Option("--no-sharing", help="every run computes everything for itself")]


@contextmanager
def told_plainly() -> Iterator[None]:
    """Turn what can go wrong into one message on stderr and an exit code: 2 the user's mistake, 1 failed, 130 interrupted."""
    from rich.console import Console

    from eva_hpc.cluster.queue import QueueError
    from eva_hpc.config.errors import ConfigError

    stderr = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        yield
    except ConfigError as error:
        stderr.print(str(error), markup=False)
        raise typer.Exit(USERS_MISTAKE) from None
    except QueueError as error:
        stderr.print(f"Slurm does not answer: {error}", markup=False)
        raise typer.Exit(WORK_FAILED) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        place = f": {error.filename}" if error.filename else ""
        stderr.print(f"{error.strerror}{place}. Make room: the same command goes on from here.", markup=False)
        raise typer.Exit(WORK_FAILED) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None

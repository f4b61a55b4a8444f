"""The command that starts Python in a stage's software environment: interpreter, shell lines before it, container around it.

    python -u -m …                                                    the launcher's own, or `python:` of the site file
    bash -c 'module load cuda; exec "$@"' bash python -u -m …         with `setup:`
    apptainer exec --nv --bind /shared/eva vllm.sif python3 -u -m …   with a container of apptainer
    srun --container-image=… python3 -u -m …                          of pyxis, whose options are srun's: see `srun_options`

The code itself comes from the snapshot by PYTHONPATH: an environment needs the packages only.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from eva_hpc.config.site import Software

# srun passes USR2 to every process of a step; bash would die of it. What is ignored stays so until Python sets its own handler.
_SHELL = "set -e\ntrap '' USR2\n{lines}\nexec \"$@\""


def command_in(software: Software, arguments: Sequence[str], binds: Sequence[Path] = ()) -> list[str]:
    """The command that runs ``python ARGUMENTS`` in the environment.

    Args:
        software: the environment.
        arguments: what follows the interpreter, e.g. ``-m eva_hpc.cluster.worker FILE``.
        binds: folders of this machine that a container must see under the same path.
    """
    inside = "python3" if software.container else sys.executable
    command = [software.python or inside, "-u", *arguments]
    container = software.container
    if container and container.runtime == "apptainer":
        seen = [part for folder in binds for part in ("--bind", str(folder))]
        command = ["apptainer", "exec", "--nv", *seen, *container.options, container.image, *command]
    if software.setup:
        command = ["bash", "-c", _SHELL.format(lines="\n".join(software.setup)), "bash", *command]
    return command


def srun_options(software: Software, binds: Sequence[Path] = ()) -> list[str]:
    """Options that srun needs for the environment: those of pyxis, none otherwise."""
    container = software.container
    if not container or container.runtime != "pyxis":
        return []
    mounts = ",".join(f"{folder}:{folder}" for folder in binds)
    # Without the last one, the variables of the image win, and with them its PYTHONPATH.
    own = [f"--container-image={container.image}", "--container-env=PYTHONPATH"]
    return [*own, *([f"--container-mounts={mounts}"] if mounts else []), *container.options]

"""How the processes of a stage are started on a job's nodes, and how they find each other.

A job runs one driver; the driver runs each stage as a nested step (`srun` inside the job); every rank reads who it is.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eva_hpc.cluster.queue import hostnames, show_node

# What a nested srun may know of the job. All else that begins with SLURM or SRUN describes the driver's own step or are options
# in disguise (SLURM_NTASKS, SLURM_CPU_BIND, SLURM_MEM_PER_CPU, SLURM_GPUS, …) that contradict or silently change ours.
KEPT = re.compile(
    r"SLURM_(CONF|CLUSTER_NAME|JOB_ID|JOBID|JOB_\w+|ARRAY_\w+|NODELIST|NNODES|RESTART_COUNT|SUBMIT_\w+)$|SLURMD_\w+$"
)
OF_THE_STEP = re.compile(r"(SLURM|SRUN|PMI|PMIX)\w*_|SLURMD_")
GPUS_OF_THE_STEP = ("CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK")


@dataclass(frozen=True)
class Ranks:
    """Who a process is: its rank among all and on its node, and the name that Slurm has for its node."""

    rank: int
    world_size: int
    local_rank: int
    node: str


def nested_step(
    command: Sequence[str],
    *,
    nodes: int,
    ranks_per_node: int,
    gpus_per_node: int,
    cpus_per_rank: int,
    gpu_type: str | None = None,
    options: Sequence[str] = (),
    talks: bool = False,
) -> list[str]:
    """The srun command that runs `nodes` x `ranks_per_node` processes inside the job, on its first nodes, rank 0 on the first.

    Run it with `clean_environment` and with stdout and stderr redirected. Every rank of a node sees all GPUs that the step has
    there: it takes the one of its local rank. If one rank fails, the others are ended; a rank that ends well waits for no one.
    With `talks`, what srun reads is read by every rank, and what they print is passed on without the label of who printed it.
    """
    gpus = f"gpu:{gpu_type}:{gpus_per_node}" if gpu_type else f"gpu:{gpus_per_node}"
    ranks = nodes * ranks_per_node
    return [
        "srun",
        "--overlap",  # the driver's own step holds the same resources
        f"--nodes={nodes}",
        "--relative=0",
        f"--ntasks={ranks}",
        f"--ntasks-per-node={ranks_per_node}",
        "--distribution=block",  # ranks of a node are neighbours, whatever the site's default
        f"--cpus-per-task={cpus_per_rank}",
        "--mem=0",  # all memory of the job
        f"--gres={gpus if gpus_per_node else 'none'}",
        "--mpi=none",
        "--export=ALL",
        f"--input={'all' if talks else 'none'}",
        "--kill-on-bad-exit=1",
        "--wait=0",
        *(["--label"] if ranks > 1 and not talks else []),
        *options,
        *command,
    ]


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for a nested step: the driver's, without what describes the driver's own step."""
    dropped = set(GPUS_OF_THE_STEP) if environ.keys() & {"SLURM_STEP_GPUS", "SLURM_JOB_GPUS"} else set()
    return {
        name: value
        for name, value in environ.items()
        if name not in dropped and (KEPT.match(name) or not OF_THE_STEP.match(name))
    }


def rank_from_environment(environ: Mapping[str, str] = os.environ) -> Ranks:
    """Who this process of a step is.

    Raises:
        RuntimeError: it is not in a step of Slurm.
    """
    try:
        return Ranks(
            rank=int(environ["SLURM_PROCID"]),
            world_size=int(environ["SLURM_NTASKS"]),
            local_rank=int(environ["SLURM_LOCALID"]),
            node=environ["SLURMD_NODENAME"],
        )
    except KeyError as missing:
        raise RuntimeError(f"not started by srun: {missing.args[0]} is not set") from None


def master_address(environ: Mapping[str, str] = os.environ) -> str:
    """Where rank 0 is: the first of the job's nodes, by its name or, where names of nodes do not resolve, its address.

    Raises:
        RuntimeError: this process is not in a job.
        ControllerAway, QueueError: see `eva_hpc.cluster.queue`.
    """
    nodelist = environ.get("SLURM_JOB_NODELIST")
    if not nodelist:
        raise RuntimeError("not in a job of Slurm: SLURM_JOB_NODELIST is not set")
    first = hostnames(nodelist)[0]
    try:
        socket.getaddrinfo(first, None)
    except socket.gaierror:
        return show_node(first)["NodeAddr"]
    return first

"""Which CPUs each rank of a node gets, where Slurm has bound the process that forks them."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path

_TOPOLOGY = Path("/sys/devices/system/cpu")


def bind_rank(local_rank: int, ranks: int, threads: int, environ: Mapping[str, str] = os.environ) -> None:
    """Let this process run on CPUs of its own among those of its parent, `threads` of them, if there are enough.

    Where Slurm binds nothing, ranks are not bound either: the same CPUs would be taken in every job of the node.
    """
    mine = os.sched_getaffinity(0)
    bound = bool(environ.get("SLURM_CPU_BIND_LIST")) or len(mine) < (os.cpu_count() or 1)
    if bound and (own := cpus_of_rank(mine, local_rank, ranks, threads)):
        os.sched_setaffinity(0, own)


def cpus_of_rank(cpus: Collection[int], local_rank: int, ranks: int, threads: int, topology: Path = _TOPOLOGY) -> set[int]:
    """The CPUs of a rank; empty if there are fewer than `ranks` x `threads`. Threads of one core stay together.

    Args:
        cpus: of all ranks.
        local_rank: which of them.
        ranks: how many.
        threads: CPUs for each; what is over is shared out evenly.
        topology: where the kernel tells which CPUs are of one core.
    """
    each = len(cpus) // ranks
    if each < threads:
        return set()
    ordered = sorted(
        cpus, key=lambda cpu: (_number(topology, cpu, "physical_package_id"), _number(topology, cpu, "core_id"), cpu)
    )
    return set(ordered[local_rank * each : (local_rank + 1) * each])


def _number(topology: Path, cpu: int, name: str) -> int:
    try:
        return int((topology / f"cpu{cpu}" / "topology" / name).read_text())
    except (OSError, ValueError):
        return 0

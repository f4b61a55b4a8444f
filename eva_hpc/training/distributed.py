"""The process group of one training job: gloo on CPUs, NCCL on GPUs; and settings that DeepSpeed reads when imported."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

# Checking for GPUs through NVML does not initialise CUDA, so a process that has imported this can still fork.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")

import torch
import torch.distributed

# DeepSpeed picks its accelerator when it is imported, and on a machine without GPU may pick CUDA.
if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")

# Rank 0 writes the exported weights alone while the others wait: minutes on a slow file system.
_TIMEOUT = timedelta(minutes=30)


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together."""

    rank: int
    world_size: int
    device: torch.device

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum of the ranks' values, on every rank. A float64 copy on the CPU; shape as given."""
        total = values.detach().to(self.device, torch.float64)
        if self.world_size > 1:
            torch.distributed.all_reduce(total)
        return total.cpu()

    def from_first(self, number: int) -> int:
        """Rank 0's number, on every rank."""
        return int(self.sum(torch.tensor(float(number if self.rank == 0 else 0))).item())

    def wait(self) -> None:
        """Return when every rank has called this."""
        if self.world_size > 1:
            torch.distributed.barrier()


@contextlib.contextmanager
def distributed(rank: int, world_size: int, local_rank: int, master: tuple[str, int] | None, threads: int) -> Iterator[Ranks]:
    """The process group of `world_size` ranks that meet at `master` (host, port); one rank alone needs no master.

    Args:
        rank: this process, from 0.
        world_size: number of processes.
        local_rank: index among the processes of this node; chooses the GPU.
        master: where rank 0 listens.
        threads: CPU threads of this process.

    Raises:
        ValueError: several ranks without a master.
    """
    if world_size > 1 and master is None:
        raise ValueError(f"{world_size} ranks need the host and port of rank 0 to meet at")
    torch.set_num_threads(threads)
    device = torch.device("cpu")
    if torch.cuda.is_available():
        # A scheduler may show each process one GPU only, which then is number 0 whatever the local rank.
        device = torch.device("cuda", local_rank % torch.cuda.device_count())
        torch.cuda.set_device(device)
    host, port = master or ("127.0.0.1", 0)
    # DeepSpeed reads these instead of asking torch.distributed; without LOCAL_SIZE it runs numactl at every step.
    os.environ.update(
        RANK=str(rank),
        WORLD_SIZE=str(world_size),
        LOCAL_RANK=str(device.index or 0),
        LOCAL_SIZE="1",
        MASTER_ADDR=host,
        MASTER_PORT=str(port),
    )
    if sys.platform == "linux" and host in ("127.0.0.1", "localhost"):
        # Else gloo looks up the machine's own name, which does not resolve everywhere.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.distributed.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        rank=rank,
        world_size=world_size,
        timeout=_TIMEOUT,
        **({"init_method": f"tcp://{host}:{port}"} if world_size > 1 else {"store": torch.distributed.HashStore()}),
    )
    try:
        yield Ranks(rank, world_size, device)
    finally:
        torch.distributed.destroy_process_group()

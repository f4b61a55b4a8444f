"""How fast training is: one JSON object per optimiser step; not in the training log, which is the same each time.

{"step": 1, "seconds": 2.31, "pairs": 64, "tokens": 38211, "padded": 0.02, "tokens_per_second": 16541.6,
 "pairs_per_second": 27.71, "model_tflops": 310.4, "mfu": 0.314, "peak_memory_gb": 61.2}

Training that goes on after an interruption does the steps since the checkpoint again, and their rows are replaced, as in the
training log. Unlike there, a row may be missing: that of a step during which the process was killed.
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path
from typing import TypedDict

import orjson
import torch

from eva_hpc.store.records import write_jsonl
from eva_hpc.training.distributed import Ranks

_PEAKS = {
    "A10": 125.0,
    "A30": 165.0,
    "A40": 149.7,
    "RTX A6000": 154.8,
    "A100": 312.0,
    "A800": 312.0,
    "L4": 121.0,
    "L40": 181.0,
    "L40S": 362.0,
    "H20": 148.0,
    "H100 PCIE": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.0,
    "H800": 989.0,
    "H200 NVL": 836.0,
    "H200": 989.0,
    "GH200": 989.0,
    "B200": 2250.0,
    "B300": 2250.0,
    "GB200": 2500.0,
}
"""By consecutive words of the device's name; of one that fits two, the first."""


class Row(TypedDict):
    """One optimiser step.

    Attributes:
        step: from 1.
        seconds: from the end of the step before (or of what :meth:`SpeedLog.restart` left out) to the end of this one.
        pairs: of all ranks.
        tokens: of all ranks, without padding.
        padded: share of padding in the tokens that were computed.
        tokens_per_second: of all ranks, without padding.
        pairs_per_second: of all ranks.
        model_tflops: 10^12 floating-point operations per second of one rank, the mean over ranks; those that the model needs,
            without those that gradient checkpointing repeats. None where they are not known.
        mfu: `model_tflops` over the device's :func:`peak_tflops`. None where either is not known.
        peak_memory_gb: 10^9 bytes, of the rank with the most: on GPUs what PyTorch allocated on the device at most since the
            step before, on CPUs the resident memory of the process at most since it started.
    """

    step: int
    seconds: float
    pairs: int
    tokens: int
    padded: float
    tokens_per_second: float
    pairs_per_second: float
    model_tflops: float | None
    mfu: float | None
    peak_memory_gb: float


class SpeedLog:
    """Writes the log. All ranks make one and call its methods equally often; the first rank writes."""

    def __init__(self, path: Path, ranks: Ranks, done: int = 0) -> None:
        """Start the clock, and keep the rows of the first `done` steps, which the checkpoint of an earlier attempt has seen."""
        self._path = path
        self._ranks = ranks
        on_gpu = ranks.device.type == "cuda"
        self._peak = peak_tflops(torch.cuda.get_device_name(ranks.device)) if on_gpu else None
        if ranks.rank == 0:
            write_jsonl(path, [row for row in rows(path) if row["step"] <= done])
        self.restart()

    def restart(self) -> None:
        """Start the clock anew, after what is not training: a checkpoint."""
        self._began = time.perf_counter()
        if self._ranks.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._ranks.device)

    def step(self, *, step: int, pairs: int, tokens: int, computed_tokens: int, flops: float | None) -> None:
        """Log a step that has just been done. A small all-reduce, which waits for all ranks and for the device.

        Args:
            step: number of the step, from 1.
            pairs: that this rank read, without dummies.
            tokens: that this rank read, without padding and dummies.
            computed_tokens: the same with padding and dummies.
            flops: floating-point operations that these tokens need on this rank, forward and backward; None if not known.
        """
        own = [pairs, tokens, computed_tokens, flops or 0.0, float(flops is None), _peak_memory(self._ranks.device)]
        table = torch.zeros(self._ranks.world_size, len(own), dtype=torch.float64)
        table[self._ranks.rank] = torch.tensor(own, dtype=torch.float64)
        table = self._ranks.sum(table)
        seconds = time.perf_counter() - self._began
        self.restart()
        if self._ranks.rank == 0:
            total_pairs, total_tokens, computed, total_flops, unknown = table[:, :5].sum(0).tolist()
            tflops = None if unknown else total_flops / self._ranks.world_size / seconds / 1e12
            row = Row(
                step=step,
                seconds=round(seconds, 6),
                pairs=int(total_pairs),
                tokens=int(total_tokens),
                padded=round(1 - total_tokens / computed, 6),
                tokens_per_second=round(total_tokens / seconds, 3),
                pairs_per_second=round(total_pairs / seconds, 6),
                model_tflops=None if tflops is None else round(tflops, 6),
                mfu=None if tflops is None or self._peak is None else round(tflops / self._peak, 6),
                peak_memory_gb=round(float(table[:, 5].max()), 6),
            )
            with self._path.open("ab") as file:
                file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))


def rows(path: Path) -> list[Row]:
    """The rows of a log up to the first line that is none, e.g. a torn last one; none if there is no log."""
    found: list[Row] = []
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else []:
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError:
            break
        if not line.endswith(b"\n") or not isinstance(row, dict) or not isinstance(row.get("step"), int):
            break
        found.append(Row(**row))  # type: ignore[typeddict-item]
    return found


def peak_tflops(device_name: str) -> float | None:
    """10^12 floating-point operations per second that a GPU can do at most, in dense bfloat16 matrix products.

    Args:
        device_name: as ``torch.cuda.get_device_name()`` gives it, e.g. ``NVIDIA H100 80GB HBM3``.

    Returns:
        That of NVIDIA's data sheet of the product, halved where it is given "with sparsity"; the H800's is the H100's. None for
        another device, a part of one (MIG) and a CPU.
    """
    words = device_name.upper().replace("-", " ").split()
    if "MIG" in words:
        return None
    return next((peak for name, peak in _PEAKS.items() if _consecutive(name.split(), words)), None)


def _consecutive(some: list[str], words: list[str]) -> bool:
    return any(words[start : start + len(some)] == some for start in range(len(words)))


def _peak_memory(device: torch.device) -> float:
    """In 10^9 bytes, see :class:`Row`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return resident * (1 if sys.platform == "darwin" else 1024) / 1e9

"""Checkpoints of training: weights, optimiser and step, complete or not there.

FOLDER/step-00000120/
    zero_pp_rank_*_….pt     one shard per rank, by DeepSpeed
    COMPLETE                {"step": 120, "world_size": 8}, written last by atomic rename
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from eva_hpc.store.artifacts import sync, write_atomically
from eva_hpc.training.distributed import Ranks

if TYPE_CHECKING:
    import deepspeed

_log = logging.getLogger(__name__)
_COMPLETE = "COMPLETE"


def save(engine: deepspeed.DeepSpeedEngine, folder: Path, step: int, ranks: Ranks) -> None:
    """Save the state after `step` optimiser steps; older checkpoints go once it is complete. All ranks must call this."""
    path = _path(folder, step)
    if ranks.rank == 0:
        shutil.rmtree(path, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
    ranks.wait()
    engine.save_checkpoint(str(folder), tag=path.name, client_state={"step": step}, save_latest=False)
    ranks.wait()
    if ranks.rank == 0:
        for file in path.iterdir():
            sync(file)
        write_atomically(path / _COMPLETE, orjson.dumps({"step": step, "world_size": ranks.world_size}))
        for older in folder.glob("step-*"):
            if older != path:
                shutil.rmtree(older, ignore_errors=True)
    ranks.wait()


def restore(engine: deepspeed.DeepSpeedEngine, folder: Path, ranks: Ranks) -> int:
    """Load the latest complete checkpoint; returns how many optimiser steps it has seen, 0 if there is none to load.

    ZeRO-3 shards fit only the world size that wrote them: with another, training starts again from the start policy.
    """
    step = ranks.from_first(latest_step(folder, ranks.world_size) if ranks.rank == 0 else 0)
    if step:
        path, _ = engine.load_checkpoint(str(folder), tag=_path(folder, step).name, load_lr_scheduler_states=False)
        if path is None:
            raise OSError(f"{_path(folder, step)} is marked complete but DeepSpeed cannot load it")
    return step


def latest_step(folder: Path, world_size: int) -> int:
    """The step of the latest complete checkpoint that this world size can load, else 0."""
    markers = [orjson.loads(path.read_bytes()) for path in folder.glob(f"step-*/{_COMPLETE}")]
    usable = [marker["step"] for marker in markers if marker["world_size"] == world_size]
    for marker in markers:
        if marker["world_size"] != world_size:
            _log.warning(
                "the checkpoint of step %d was written by %d ranks and cannot be loaded by %d: not used",
                marker["step"],
                marker["world_size"],
                world_size,
            )
    if markers and not usable:
        _log.warning("training starts again from the start policy")
    return max(usable, default=0)


def _path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}"

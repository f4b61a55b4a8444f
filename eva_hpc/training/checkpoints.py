"""Checkpoints of training: weights, optimiser and step, complete or not there.

FOLDER/step-00000120/
    zero_pp_rank_*_….pt     one shard per rank, by DeepSpeed
    COMPLETE                {"step": 120, "world_size": 8, "files": {"zero_pp_rank_0_….pt": 123456}}: sizes in bytes,
                            written last by atomic rename
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
        files = {}
        for file in sorted(path.iterdir()):
            sync(file)
            files[file.name] = file.stat().st_size
        write_atomically(path / _COMPLETE, orjson.dumps({"step": step, "world_size": ranks.world_size, "files": files}))
        for older in folder.glob("step-*"):
            if older != path:
                shutil.rmtree(older, ignore_errors=True)
    ranks.wait()


def restore(engine: deepspeed.DeepSpeedEngine, folder: Path, logged: int, ranks: Ranks) -> int:
    """Load the latest checkpoint that can be gone on from; returns how many optimiser steps it has seen, 0 if there is none.

    ZeRO-3 shards fit only the world size that wrote them: with another, training starts again from the start policy.

    Args:
        engine: with the weights of the start policy.
        folder: of the checkpoints.
        logged: rows that the training log has.
        ranks: all of them must call this.

    Raises:
        OSError: the checkpoint looked complete but cannot be loaded; the next attempt does without it.
    """
    if ranks.rank == 0:
        for cut_short in folder.glob("step-*"):
            if not (cut_short / _COMPLETE).exists():
                shutil.rmtree(cut_short, ignore_errors=True)
    step = ranks.from_first(latest_step(folder, ranks.world_size, logged) if ranks.rank == 0 else 0)
    if step:
        path = _path(folder, step)
        try:
            loaded, _ = engine.load_checkpoint(str(folder), tag=path.name, load_lr_scheduler_states=False)
        except Exception as error:
            (path / _COMPLETE).unlink(missing_ok=True)
            raise OSError(f"{path} cannot be loaded ({error}): the same command goes on without it") from error
        if loaded is None:
            (path / _COMPLETE).unlink(missing_ok=True)
            raise OSError(f"{path} is marked complete but DeepSpeed cannot load it: the same command goes on without it")
    return step


def latest_step(folder: Path, world_size: int, logged: int) -> int:
    """The step of the latest checkpoint that is whole, that this world size can load and whose steps are all logged, else 0."""
    found = sorted(folder.glob(f"step-*/{_COMPLETE}"))
    usable = []
    for path in found:
        marker = orjson.loads(path.read_bytes())
        if problem := _problem(path.parent, marker, world_size, logged):
            _log.warning("the checkpoint of step %d %s: not used", marker["step"], problem)
        else:
            usable.append(marker["step"])
    if found and not usable:
        _log.warning("training starts again from the start policy")
    return max(usable, default=0)


def _problem(path: Path, marker: dict[str, Any], world_size: int, logged: int) -> str | None:
    """Why a checkpoint that is marked complete cannot be gone on from, if so."""
    if marker["world_size"] != world_size:
        return f"was written by {marker['world_size']} ranks and cannot be loaded by {world_size}"
    for name, size in marker.get("files", {}).items():
        found = (path / name).stat().st_size if (path / name).is_file() else 0
        if found != size:
            return f"has {found} of the {size} bytes of {name}"
    return f"is ahead of the training log, which has {logged} steps" if logged < marker["step"] else None


def _path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}"

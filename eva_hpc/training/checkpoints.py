"""Checkpoints of training: weights, optimiser and step, complete or not there.

FOLDER/step-00000120/
    zero_pp_rank_*_….pt     one shard per rank, by DeepSpeed
    COMPLETE                {"step": 120, "world_size": 8, "files": {"zero_pp_rank_0_….pt": 123456}}: sizes in bytes,
                            written last by atomic rename
"""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import torch

from eva_hpc.store.artifacts import sync, write_atomically
from eva_hpc.training import shards
from eva_hpc.training.distributed import Ranks

if TYPE_CHECKING:
    import deepspeed

_log = logging.getLogger(__name__)
_COMPLETE = "COMPLETE"


def save(engine: deepspeed.DeepSpeedEngine, folder: Path, step: int, ranks: Ranks) -> None:
    """Save the state after `step` optimiser steps; older checkpoints go once it is complete. All ranks must call this.

    Weights that are not trained are left out: they are the start policy's. There must be room for two checkpoints at once.

    Raises:
        OSError: there is no room for it, or another reason of the file system; older checkpoints are still there.
    """
    path = _path(folder, step)
    if ranks.rank == 0:
        shutil.rmtree(path, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
    ranks.wait()
    try:
        engine.save_checkpoint(
            str(folder), tag=path.name, client_state={"step": step}, save_latest=False, exclude_frozen_parameters=True
        )
    except Exception:
        try:
            _try_to_write(folder / f"rank-{ranks.rank}.partial")  # torch does not say that a disk is full
        finally:
            shutil.rmtree(path, ignore_errors=True)
        raise
    for file in path.glob(f"*_rank_{ranks.rank}_*"):
        sync(file)  # here, because another node cannot
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

    It may have been written by any number of ranks, see :mod:`eva_hpc.training.shards`.

    Args:
        engine: with the weights of the start policy.
        folder: of the checkpoints.
        logged: rows that the training log has.
        ranks: all of them must call this.

    Raises:
        OSError: the checkpoint looked complete but cannot be loaded; the next attempt does without it.
    """
    first = ranks.rank == 0
    if first:
        for cut_short in folder.glob("step-*"):
            if not (cut_short / _COMPLETE).exists():
                shutil.rmtree(cut_short, ignore_errors=True)
    found = first and any(folder.glob(f"step-*/{_COMPLETE}"))
    while step := ranks.from_first(latest_step(folder, logged) if first else 0):
        path = _path(folder, step)
        written_by = ranks.from_first(_marker(path)["world_size"] if first else 0)
        damage = shards.damage(path, written_by, ranks)
        if damage is not None:
            _log.warning("the checkpoint of step %d %s: not used", step, damage)
        if not ranks.sum(torch.tensor(float(damage is not None))).item():
            break
        if first:
            (path / _COMPLETE).unlink()
    if not step:
        if found:
            _log.warning("training starts again from the start policy")
        return 0
    try:
        shards.load(engine, path, written_by, ranks)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        (path / _COMPLETE).unlink(missing_ok=True)
        raise OSError(f"{path} cannot be loaded ({error}): the same command goes on without it") from error
    if first and written_by != ranks.world_size:
        _log.warning("the checkpoint of step %d was written by %d ranks: %d go on", step, written_by, ranks.world_size)
    return step


def latest_step(folder: Path, logged: int) -> int:
    """The step of the latest checkpoint that is whole, by the sizes of its files, and whose steps are all logged, else 0."""
    usable = []
    for path in sorted(folder.glob(f"step-*/{_COMPLETE}")):
        try:
            marker = _marker(path.parent)
            problem = _problem(path.parent, marker, logged)
        except (orjson.JSONDecodeError, KeyError, TypeError):
            problem = "has a mark that cannot be read"
        if problem:
            _log.warning("the checkpoint of step %d %s: not used", int(path.parent.name.removeprefix("step-")), problem)
        else:
            usable.append(int(marker["step"]))
    return max(usable, default=0)


def _problem(path: Path, marker: dict[str, Any], logged: int) -> str | None:
    """Why a checkpoint that is marked complete cannot be gone on from, if so."""
    for name, size in marker.get("files", {}).items():
        found = (path / name).stat().st_size if (path / name).is_file() else 0
        if found != size:
            return f"has {found} of the {size} bytes of {name}"
    return f"is ahead of the training log, which has {logged} steps" if logged < marker["step"] else None


def _try_to_write(path: Path) -> None:
    """Write a megabyte and remove it, for the reason why that cannot be done."""
    try:
        with path.open("wb") as file:
            file.write(bytes(1 << 20))
            file.flush()
            os.fsync(file.fileno())
    finally:
        path.unlink(missing_ok=True)


def _marker(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = orjson.loads((path / _COMPLETE).read_bytes())
    return content


def _path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}"

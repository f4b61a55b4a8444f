"""An engine for the policy of an artifact, with the limits of the site; the stages of one process may share it in turn.

with kept_engines():         # a process that runs several stages
    generate.run(...)        # opens the engine
    answer.run(...)          # the same policy: the same engine
    release()                # before something that needs the memory
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from eva_hpc.inference.engine import CONTINUOUS, Engine, EngineLimits, EngineName, ModelSource
from eva_hpc.inference.opening import open_engine
from eva_hpc.stages.contract import Context


def limits(context: Context) -> EngineLimits:
    """What the site allows an engine on this rank."""
    return EngineLimits(
        batch_tokens=context.engine.batch_tokens,
        threads=context.resources.threads,
        tensor_parallel=max(1, context.resources.gpus_per_rank),
        gpu_memory_utilization=context.engine.gpu_memory_utilization,
        max_model_len=context.engine.max_model_len,
        cache_dir=context.work / f"engine-{context.rank}",
    )


class LazyEngine:
    """Opens the engine at the first use: a resumed stage with nothing left to do starts none.

    `continuous` says whether it is one whose running batch takes in new requests.
    """

    def __init__(self, engine: EngineName, model: ModelSource, context: Context) -> None:
        self.continuous = engine in CONTINUOUS
        self._arguments = (engine, model, limits(context))
        self._used = False

    def get(self) -> Engine:
        """The engine."""
        self._used = True
        return _holder.get(*self._arguments)

    def __enter__(self) -> LazyEngine:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if self._used and (kind is not None or not _holder.keeps):
            release()


@contextmanager
def kept_engines() -> Iterator[None]:
    """Within this, an engine stays open after its stage, for the next one that wants the same; at the end it is closed.

    A stage that fails, or is stopped, closes it.
    """
    _holder.keeps = True
    try:
        yield
    finally:
        _holder.keeps = False
        release()


def release() -> None:
    """Close the engine that is open in this process, if there is one."""
    _holder.close()


class _Holder:
    """The engine that is open in this process, and what it was opened for."""

    def __init__(self) -> None:
        self.keeps = False
        self._engine: Engine | None = None
        self._of: Any = None

    def get(self, name: EngineName, model: ModelSource, limits: EngineLimits) -> Engine:
        elsewhere = replace(limits, cache_dir=None)  # the folder of a stage goes with its commit
        wanted = (name, model, _files(model.path), elsewhere)
        if self._engine is None or self._of != wanted:
            self.close()
            self._engine = open_engine(name, model, elsewhere if self.keeps else limits)
            self._of = wanted
        return self._engine

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()
        self._engine = self._of = None


def _files(path: str) -> list[tuple[str, int, int]]:
    """Names, sizes and times of a model's files: other weights in the same place are told apart. Of a hub's model none."""
    folder = Path(path)
    if not folder.is_dir():
        return []
    stats = sorted((file.name, file.stat()) for file in folder.iterdir())
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]


_holder = _Holder()

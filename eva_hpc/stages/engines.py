"""An engine for the policy of an artifact, with the limits of the site."""

from __future__ import annotations

from dataclasses import replace

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


_Opening = tuple[EngineName, ModelSource, EngineLimits]


class _Kept:
    """The engine that this process keeps open from one stage to the next, if it is to keep any."""

    wanted = False
    opening: _Opening | None = None
    engine: Engine | None = None


def keep_open(wanted: bool) -> None:
    """Whether stages that end well leave their engine open for the next stage of this process that needs the same."""
    _Kept.wanted = wanted


class LazyEngine:
    """Opens the engine at the first use: a resumed stage with nothing left to do starts none.

    `continuous` says whether it is one whose running batch takes in new requests.
    """

    def __init__(self, engine: EngineName, model: ModelSource, context: Context) -> None:
        self.continuous = engine in CONTINUOUS
        self._opening: _Opening = (engine, model, limits(context))
        self._engine: Engine | None = None

    def get(self) -> Engine:
        """The engine."""
        if self._engine is None:
            self._engine = _take_kept(self._opening) or open_engine(*self._opening)
        return self._engine

    def __enter__(self) -> LazyEngine:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if self._engine is None:
            return
        if _Kept.wanted and kind is None:
            _Kept.opening, _Kept.engine = self._opening, self._engine
        else:
            self._engine.close()


def _take_kept(opening: _Opening) -> Engine | None:
    """The engine that was kept, if it is the same; another one is closed."""
    kept, _Kept.engine = _Kept.engine, None
    if kept is not None and _Kept.opening is not None and _same(_Kept.opening) != _same(opening):
        kept.close()
        return None
    return kept


def _same(opening: _Opening) -> _Opening:
    """What makes two openings the same: folders for kernels may differ."""
    engine, model, allowed = opening
    return engine, model, replace(allowed, cache_dir=None)

"""An engine for the policy of an artifact, with the limits of the site."""

from __future__ import annotations

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
        self._engine: Engine | None = None

    def get(self) -> Engine:
        """The engine."""
        if self._engine is None:
            self._engine = open_engine(*self._arguments)
        return self._engine

    def __enter__(self) -> LazyEngine:
        return self

    def __exit__(self, *error: object) -> None:
        if self._engine is not None:
            self._engine.close()

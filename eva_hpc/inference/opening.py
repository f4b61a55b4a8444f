"""Opening an engine by its name; torch, transformers and vLLM load only then."""

from __future__ import annotations

from eva_hpc.inference.engine import Engine, EngineLimits, EngineName, ModelSource


def open_engine(engine: EngineName, model: ModelSource, limits: EngineLimits) -> Engine:
    """Load a policy. At most one vLLM engine may be open in a process.

    Raises:
        ValueError: no such engine, or the engine cannot run this architecture.
        OSError: the model is not there.
    """
    if engine == "transformers":
        from eva_hpc.inference.transformers_engine import TransformersEngine

        return TransformersEngine(model, limits)
    if engine == "vllm":
        from eva_hpc.inference.vllm_engine import VllmEngine

        return VllmEngine(model, limits)
    raise ValueError(f"unknown engine {engine!r}: choose transformers or vllm")

"""Sampling with vLLM, offline: one engine per process. Shards of the prompts are separate processes with an engine each."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from eva_hpc.inference.chat import ChatTokenizer
from eva_hpc.inference.engine import EngineLimits, Message, ModelSource, Request, Sampling, by_request, check_prompts
from eva_hpc.inference.loading import load_config
from eva_hpc.store.records import Response


class VllmEngine:
    """An :class:`~eva_hpc.inference.engine.Engine` over vLLM, with the record conventions of the transformers engine."""

    def __init__(self, model: ModelSource, limits: EngineLimits) -> None:
        """Load the model.

        Raises:
            OSError: the model is not there.
            ValueError: vLLM does not support the architecture.
        """
        config = load_config(model)
        self._chat = ChatTokenizer(model)
        self._stop = self._chat.stop_tokens(model, config)
        self.longest = limits.max_model_len or config.get_text_config(decoder=True).max_position_embeddings
        # Prefixes are cached so that the prompt of k requests is computed once.
        self._process = VllmProcess(
            model, limits, max_model_len=self.longest, enable_prefix_caching=True, **_whole_prompts(self.longest)
        )

    def render(self, messages: Sequence[Message]) -> list[int]:
        """See :class:`~eva_hpc.inference.engine.Engine`."""
        return self._chat.render(messages)

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Response]]:
        """See :class:`~eva_hpc.inference.engine.Engine`."""
        from vllm import SamplingParams

        check_prompts(requests, self.longest)
        prompts: list[Any] = []
        settings = []
        for request in requests:
            for seed in request.seeds:
                prompts.append({"prompt_token_ids": request.prompt_tokens})
                settings.append(
                    SamplingParams(
                        n=1,
                        seed=seed,
                        temperature=sampling.temperature,
                        top_p=sampling.top_p if sampling.temperature > 0 else 1.0,
                        max_tokens=sampling.max_new_tokens,
                        stop_token_ids=sorted(self._stop),
                        logprobs=0,
                        detokenize=False,
                    )
                )
        outputs = [output.outputs[0] for output in self._process.llm.generate(prompts, settings, use_tqdm=False)]
        responses = self._chat.responses(
            [list(output.token_ids) for output in outputs], [output.cumulative_logprob for output in outputs], self._stop
        )
        return by_request(requests, responses)

    def close(self) -> None:
        """See :class:`~eva_hpc.inference.engine.Engine`."""
        self._process.close()


def _whole_prompts(longest: int) -> dict[str, Any]:
    """Options that keep a prompt in one step where there is no GPU.

    After part of a prompt vLLM takes back the random draw of a seeded request, which torch's CPU generator cannot do.
    """
    if torch.cuda.is_available():
        return {}
    return {"enable_chunked_prefill": False, "max_num_batched_tokens": max(longest, 2048)}


class VllmProcess:
    """The vLLM of this process: environment, start, shutdown. Policies and reward models share it."""

    def __init__(self, model: ModelSource, limits: EngineLimits, **options: Any) -> None:
        """Start vLLM; `options` go to `vllm.LLM`."""
        gpu = torch.cuda.is_available()
        # One folder per process: processes that compile at the same time must not share one.
        self._cache = limits.cache_dir and limits.cache_dir / f"vllm-{platform.node()}-{os.getpid()}"
        set_environment(gpu, limits.threads, self._cache)
        torch.set_num_threads(limits.threads)

        from vllm import LLM

        self.llm: Any = LLM(
            model=model.path,
            revision=model.revision,
            tokenizer_revision=model.revision,
            dtype=model.dtype,
            trust_remote_code=model.trust_remote_code,
            tensor_parallel_size=limits.tensor_parallel,
            gpu_memory_utilization=limits.gpu_memory_utilization,
            # Without this, vLLM adds the sampling settings of the model's generation config to ours.
            generation_config="vllm",
            # Compiling pays on a GPU only.
            enforce_eager=not gpu,
            disable_log_stats=True,
            **options,
        )

    def close(self) -> None:
        """Stop vLLM and give back its memory."""
        from vllm.distributed import cleanup_dist_env_and_memory

        if self.llm is None:
            return
        self.llm.llm_engine.engine_core.shutdown()
        self.llm = None
        cleanup_dist_env_and_memory()
        if self._cache is not None:
            shutil.rmtree(self._cache, ignore_errors=True)


def set_environment(gpu: bool, threads: int, cache: Path | None) -> None:
    """Environment variables that vLLM reads when it is imported; those a user has set win."""
    defaults = {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        # The engine runs in this process: it starts in seconds, and dies with it.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    }
    if cache is not None:
        defaults["VLLM_CACHE_ROOT"] = str(cache)
    if not gpu:
        defaults |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(threads)}
    for name, value in defaults.items():
        os.environ.setdefault(name, value)

"""Sampling with vLLM, offline: one engine per process. Shards of the prompts are separate processes with an engine each."""

from __future__ import annotations

import itertools
import math
import os
import platform
import shutil
from collections.abc import Hashable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from eva_hpc.inference import engine
from eva_hpc.inference.chat import ChatTokenizer
from eva_hpc.inference.engine import Answered, EngineLimits, Message, ModelSource, Request, Sampling, check_prompt
from eva_hpc.inference.loading import load_config
from eva_hpc.store.records import Response

_AHEAD = 0.25
"""Requests that wait for a place in vLLM's batch, as a share of the batch: enough to fill all places that a step sets free."""


@dataclass
class _Waiting:
    """A request whose responses are not all there; `left` are missing."""

    name: Hashable
    outputs: list[Any]
    left: int


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
        self._stop_ids = sorted(self._stop)
        self._done: list[Answered] = []
        self.longest = limits.max_model_len or config.get_text_config(decoder=True).max_position_embeddings
        # Prefixes are cached so that the prompt of k requests is computed once.
        self._process = VllmProcess(
            model, limits, max_model_len=self.longest, enable_prefix_caching=True, **whole_prompts(self.longest)
        )
        self._enough = math.ceil(self._process.max_running * (1 + _AHEAD))

    def render(self, messages: Sequence[Message]) -> list[int]:
        """See :class:`~eva_hpc.inference.engine.Engine`."""
        return self._chat.render(messages)

    @property
    def hungry(self) -> bool:
        """See :class:`~eva_hpc.inference.engine.Engine`."""
        return self._process.unfinished < self._enough

    def submit(self, name: Hashable, request: Request, sampling: Sampling) -> None:
        """See :class:`~eva_hpc.inference.engine.Engine`. Every response is a request of its own to vLLM, for its own seed."""
        check_prompt(name, request, self.longest)
        if not request.seeds:
            self._done.append(Answered(name, []))
            return
        waiting = _Waiting(name, [None] * len(request.seeds), len(request.seeds))
        for place, seed in enumerate(request.seeds):
            self._process.submit((waiting, place), request.prompt_tokens, self._parameters(sampling, seed))

    def _parameters(self, sampling: Sampling, seed: int) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            n=1,
            seed=seed,
            temperature=sampling.temperature,
            top_p=sampling.top_p if sampling.temperature > 0 else 1.0,
            max_tokens=sampling.max_new_tokens,
            stop_token_ids=self._stop_ids,
            logprobs=0,
            flat_logprobs=True,  # numbers in lists: objects for each token would cost more than sampling does
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    def step(self) -> list[Answered]:
        """See :class:`~eva_hpc.inference.engine.Engine`."""
        whole, self._done = self._done, []
        for (waiting, place), output in self._process.step():
            waiting.outputs[place] = output.outputs[0]
            waiting.left -= 1
            if waiting.left == 0:
                whole.append(self._answered(waiting))
        return whole

    def _answered(self, waiting: _Waiting) -> Answered:
        logprobs = [output.cumulative_logprob for output in waiting.outputs]
        if not all(map(math.isfinite, logprobs)):
            raise FloatingPointError("the model's logits are not finite: its weights are broken or its dtype is too small")
        tokens = [list(output.token_ids) for output in waiting.outputs]
        return Answered(waiting.name, self._chat.responses(tokens, logprobs, self._stop))

    def drop(self) -> None:
        """See :class:`~eva_hpc.inference.engine.Engine`."""
        self._process.drop()
        self._done = []

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Response]]:
        """See :class:`~eva_hpc.inference.engine.Engine`."""
        return engine.generate(self, requests, sampling)

    def close(self) -> None:
        """See :class:`~eva_hpc.inference.engine.Engine`."""
        self._process.close()


def whole_prompts(longest: int) -> dict[str, Any]:
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
        self._gpu = gpu = torch.cuda.is_available()
        # One folder per process: processes that compile at the same time must not share one.
        self._cache = limits.cache_dir and limits.cache_dir / f"vllm-{platform.node()}-{os.getpid()}"
        set_environment(gpu, limits.threads, self._cache)
        if root := os.environ.get("VLLM_CACHE_ROOT"):
            _share_what_is_known_of_models(Path(root))
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
        self.max_running: int = self.llm.llm_engine.vllm_config.scheduler_config.max_num_seqs
        self._numbers = itertools.count()
        self._submitted: dict[str, Any] = {}

    @property
    def unfinished(self) -> int:
        """How many requests were submitted and have not come back."""
        return len(self._submitted)

    def submit(self, name: Any, tokens: list[int], parameters: Any) -> None:
        """Queue a prompt; `step` gives its output under this name."""
        number = str(next(self._numbers))
        self.llm.llm_engine.add_request(number, {"type": "token", "prompt_token_ids": tokens}, parameters)
        self._submitted[number] = name

    def step(self) -> list[tuple[Any, Any]]:
        """One step of vLLM; the names and outputs of the requests that it finished."""
        if not self._submitted:
            return []
        with nullcontext() if self._gpu else torch.compiler.set_stance("force_eager"):  # it would compile the count of ranks
            outputs = [output for output in self.llm.llm_engine.step() if output.finished]
        return [(self._submitted.pop(output.request_id), output) for output in outputs]

    def drop(self) -> None:
        """Forget every request that is not finished."""
        if self._submitted:
            self.llm.llm_engine.abort_request(list(self._submitted))
            self._submitted.clear()

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


def _share_what_is_known_of_models(cache: Path) -> None:
    """Let a new cache folder have what vLLM keeps of model classes: to find it out it starts another process.

    These files are written atomically and named by the hash of vLLM's code, so that processes may share them.
    """
    known = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "vllm" / "modelinfos"
    with suppress(OSError):
        known.mkdir(parents=True, exist_ok=True)
        cache.mkdir(parents=True, exist_ok=True)
        (cache / "modelinfos").symlink_to(known)


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

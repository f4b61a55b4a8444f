"""What an inference engine is: token ids in, sampled responses out, the same records from every back end.

A response depends only on the weights, the prompt, its own seed and the sampling settings, up to floating-point noise: never
on the other requests, their order or their number. So the first k of ten responses are the k-response experiment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from eva_hpc.store.records import Response

Message = dict[str, str]


@dataclass(frozen=True)
class ModelSource:
    """Which weights, and how to load them. Softcapped models such as Gemma 2 always get eager attention."""

    path: str
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    attention: Literal["eager", "sdpa", "flash_attention_2"] = "sdpa"
    trust_remote_code: bool = False


@dataclass(frozen=True)
class EngineLimits:
    """What the hardware allows; nothing here changes a result.

    Attributes:
        batch_tokens: tokens, padding and tokens still to come included, in one batch of the transformers engine.
        threads: CPU threads of this process.
        tensor_parallel: GPUs that share one vLLM engine.
        gpu_memory_utilization: share of a GPU's memory that vLLM takes.
        max_model_len: longest prompt plus response in tokens; None is the model's own limit.
        cache_dir: folder for the compiled kernels of vLLM; None is vLLM's own default.
    """

    batch_tokens: int = 16384
    threads: int = 1
    tensor_parallel: int = 1
    gpu_memory_utilization: float = 0.9
    max_model_len: int | None = None
    cache_dir: Path | None = None


@dataclass(frozen=True)
class Sampling:
    """Decoding settings. Temperature 0 is greedy decoding, whatever top_p and the seed are.

    Raises:
        ValueError: a setting is out of its range.
    """

    temperature: float
    top_p: float
    max_new_tokens: int

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature is {self.temperature}: it must be 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}: it must be above 0 and at most 1")
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {self.max_new_tokens}: it must be 1 or more")


@dataclass(frozen=True)
class Request:
    """One prompt and one seed for each response wanted of it. Seeds lie in [0, 2**31)."""

    prompt_tokens: list[int]
    seeds: tuple[int, ...]


class Engine(Protocol):
    """A loaded policy that samples responses. `longest` is how many tokens a prompt and its response may have together."""

    longest: int

    def render(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation in the model's own chat template, ready for the assistant's turn.

        Raises:
            ValueError: the tokenizer has no chat template, or the template refuses the conversation.
        """
        ...

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Response]]:
        """Responses of every request, in the order of the requests and of their seeds.

        Raises:
            ValueError: a prompt is empty or leaves no room for a response.
            FloatingPointError: the model gave logits that are not finite, as a diverged policy does.
        """
        ...

    def close(self) -> None:
        """Give back the memory of the model. The engine cannot be used afterwards."""
        ...


def open_engine(engine: Literal["transformers", "vllm"], model: ModelSource, limits: EngineLimits) -> Engine:
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


def by_request(requests: Sequence[Request], responses: Sequence[Response]) -> list[list[Response]]:
    """Split the responses of all requests, in the order of requests and seeds, into one list per request."""
    rest = iter(responses)
    return [[next(rest) for _ in request.seeds] for request in requests]


def check_prompts(requests: Sequence[Request], longest: int) -> None:
    """Refuse prompts that no engine can answer.

    Raises:
        ValueError: a prompt is empty, or has `longest` tokens or more, so that no token could follow it.
    """
    for index, request in enumerate(requests):
        length = len(request.prompt_tokens)
        if length == 0:
            raise ValueError(f"request {index}: the prompt has no tokens")
        if length >= longest:
            raise ValueError(f"request {index}: the prompt has {length} tokens, the model takes {longest} with the response")

"""What an inference engine is: token ids in, sampled responses out, the same records from every back end.

A response depends only on the weights, the prompt, its own seed and the sampling settings, up to floating-point noise: never
on the other requests, their order or their number. So the first k of ten responses are the k-response experiment.

An engine is fed: requests are submitted while it is hungry, and every step gives back those that have become whole. So the
batch of a continuous one stays full from the first request to the last, whatever they belong to.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from eva_hpc.store.records import Response

Message = dict[str, str]
EngineName = Literal["transformers", "vllm"]

CONTINUOUS: frozenset[EngineName] = frozenset({"vllm"})
"""Engines whose running batch takes in new requests. Those of the others keep together what was submitted together."""


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


class Answered(NamedTuple):
    """A request that is whole: its name, and its responses in the order of their seeds."""

    name: Any
    responses: list[Response]


class Engine(Protocol):
    """A loaded policy that samples responses. `longest` is how many tokens a prompt and its response may have together."""

    longest: int

    @property
    def hungry(self) -> bool:
        """Whether more requests would keep the hardware busier than those that were submitted and are not whole."""
        ...

    def render(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation in the model's own chat template, ready for the assistant's turn.

        Raises:
            ValueError: the tokenizer has no chat template, or the template refuses the conversation.
        """
        ...

    def submit(self, name: Hashable, request: Request, sampling: Sampling) -> None:
        """Queue a request; a later step gives its responses under this name, which no other request there may have.

        Raises:
            ValueError: the prompt is empty or leaves no room for a response.
        """
        ...

    def step(self) -> list[Answered]:
        """Sample a few tokens, and give back every request that is now whole. Nothing submitted, nothing done.

        Raises:
            FloatingPointError: the model gave logits that are not finite, as a diverged policy does.
        """
        ...

    def drop(self) -> None:
        """Forget every request that is not whole."""
        ...

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Response]]:
        """Responses of every request, in the order of the requests and of their seeds. Raises as `submit` and `step`."""
        ...

    def close(self) -> None:
        """Give back the memory of the model. The engine cannot be used afterwards."""
        ...


def generate(engine: Engine, requests: Sequence[Request], sampling: Sampling) -> list[list[Response]]:
    """All of some requests at once, with an engine that has no others. See :meth:`Engine.generate`."""
    for index, request in enumerate(requests):
        check_prompt(index, request, engine.longest)
    for index, request in enumerate(requests):
        engine.submit(index, request, sampling)
    found: dict[Hashable, list[Response]] = {}
    try:
        while len(found) < len(requests):
            found.update((answered.name, answered.responses) for answered in engine.step())
    finally:
        engine.drop()
    return [found[index] for index in range(len(requests))]


def check_prompt(name: Hashable, request: Request, longest: int) -> None:
    """Refuse a prompt that no engine can answer.

    Raises:
        ValueError: it is empty, or has `longest` tokens or more, so that no token could follow it.
    """
    length = len(request.prompt_tokens)
    if length == 0:
        raise ValueError(f"request {name}: the prompt has no tokens")
    if length >= longest:
        raise ValueError(f"request {name}: the prompt has {length} tokens, the model takes {longest} with the response")

"""The recipe: what is trained, on which prompts, judged by what. Its fields decide results; none says where anything runs.

Sections that come in kinds have short forms::

    policy: lab                      {kind: lab}
    policy: google/gemma-2-9b-it     {kind: pretrained, path: google/gemma-2-9b-it}
    prompts: lab                     {kind: lab}
    prompts: data/prompts.jsonl      {kind: file, path: data/prompts.jsonl}      also .parquet
    prompts: org/name                {kind: hub, name: org/name}
    reward: lab                      {kind: lab}
    reward: models/reward            {kind: sequence_classification, path: models/reward}
    evolver: lab                     {kind: lab}                                 also policy
    benchmarks: {easy: lab}          {easy: {kind: lab}}                         also alpaca_eval, arena_hard, mt_bench

A relative path is looked for beside the file it is written in, then in the working directory (see `config/paths.py`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from eva_hpc.config.benchmark import Benchmark, BenchmarkName, Judge
from eva_hpc.config.section import Name, Section, broken_rule, kind_of
from eva_hpc.config.shorthand import EVOLVER, POLICY, PROMPTS, REWARD

Levels = Annotated[tuple[Annotated[int, Field(ge=1, le=9)], ...], Field(strict=False, min_length=1)]


# ---------------------------------------------------------------------------- policy


class LabPolicy(Section):
    """The lab's tiny start policy, trained on this machine from demonstrations of mixed quality."""

    kind: Literal["lab"] = "lab"
    seed: int = Field(
        default=0, ge=0, description="seed of its weights and demonstrations: another seed is another start policy"
    )
    steps: int = Field(default=800, ge=1, description="optimiser steps of supervised training")


class PretrainedPolicy(Section):
    """A causal language model from a local folder or the hub."""

    kind: Literal["pretrained"] = "pretrained"
    path: str = Field(min_length=1, description="a local folder with config.json and *.safetensors, or a hub name")
    revision: str | None = Field(default=None, description="hub commit; recommended, so that the key names the weights")
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    attention: Literal["eager", "sdpa", "flash_attention_2"] = "sdpa"
    trust_remote_code: bool = Field(default=False, description="only together with a revision")

    @model_validator(mode="after")
    def _remote_code_needs_a_revision(self) -> PretrainedPolicy:
        if self.trust_remote_code and not self.revision:
            raise broken_rule("trust_remote_code", "found true; needs a revision, the exact code that may run")
        return self


# ---------------------------------------------------------------------------- prompts


class LabPrompts(Section):
    """Base prompts of the lab world, drawn by seed."""

    kind: Literal["lab"] = "lab"
    count: int = Field(default=512, ge=4)
    levels: Levels = Field(default=(1, 2, 3), description="difficulty levels, 1 to 9, drawn uniformly")
    seed: int = Field(default=0, ge=0)


class FilePrompts(Section):
    """Prompts from a JSONL or Parquet file, read through `datasets`."""

    kind: Literal["file"] = "file"
    path: str = Field(min_length=1, description="a .jsonl or .parquet file")
    column: str = "prompt"
    limit: int | None = Field(default=None, ge=1, description="keep a seeded sample of this many prompts")
    max_tokens: int = Field(default=1024, ge=1, description="longer prompts are set aside and counted")


class HubPrompts(Section):
    """Prompts from a dataset on the hub."""

    kind: Literal["hub"] = "hub"
    name: str = Field(min_length=1, description="org/name on the hub")
    split: str = "train"
    column: str = "prompt"
    revision: str | None = None
    limit: int | None = Field(default=None, ge=1)
    max_tokens: int = Field(default=1024, ge=1)


# ---------------------------------------------------------------------------- generation and reward


class Generation(Section):
    """Decoding settings of the solver's responses, and the engine that samples them."""

    engine: Literal["transformers", "vllm"] = "transformers"
    temperature: float = Field(default=0.7, ge=0)
    top_p: float = Field(default=0.9, gt=0, le=1)
    max_new_tokens: int = Field(default=2048, ge=1)


class LabChecker(Section):
    """The lab's exact checker as reward."""

    kind: Literal["lab"] = "lab"


class SequenceClassification(Section):
    """A reward model with one logit, e.g. Skywork-Reward."""

    kind: Literal["sequence_classification"] = "sequence_classification"
    path: str = Field(min_length=1, description="a local folder with config.json and *.safetensors, or a hub name")
    revision: str | None = None
    engine: Literal["transformers", "vllm"] = "transformers"
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    max_length: int = Field(
        default=4096, ge=1, description="tokens of prompt and response together; longer ones are cut on the left of the prompt"
    )


# ---------------------------------------------------------------------------- creator


class LabRewriter(Section):
    """The lab's rule-based rewriter of prompts."""

    kind: Literal["lab"] = "lab"


class PolicyEvolver(Section):
    """The current policy rewrites the prompts itself."""

    kind: Literal["policy"] = "policy"
    engine: Literal["transformers", "vllm"] = "transformers"
    temperature: float = Field(default=0.88, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_new_tokens: int = Field(default=666, ge=1)


class ModelEvolver(PolicyEvolver):
    """Another model, run here, rewrites the prompts."""

    kind: Literal["model"] = "model"  # type: ignore[assignment]
    path: str = Field(min_length=1, description="a local folder with config.json and *.safetensors, or a hub name")
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"


class OpenAIEvolver(Section):
    """Any OpenAI-compatible server rewrites the prompts; the key comes from the environment variable named here."""

    kind: Literal["openai"] = "openai"
    model: str
    base_url: str = "https://api.openai.com/v1"
    api_key_env: str = "OPENAI_API_KEY"
    temperature: float = Field(default=0.88, ge=0)
    max_new_tokens: int = Field(default=666, ge=1)
    concurrency: int = Field(default=16, ge=1)


Policy = Annotated[
    Annotated[LabPolicy, Tag("lab")] | Annotated[PretrainedPolicy, Tag("pretrained")], Discriminator(kind_of), POLICY
]
Prompts = Annotated[
    Annotated[LabPrompts, Tag("lab")] | Annotated[FilePrompts, Tag("file")] | Annotated[HubPrompts, Tag("hub")],
    Discriminator(kind_of),
    PROMPTS,
]
Reward = Annotated[
    Annotated[LabChecker, Tag("lab")] | Annotated[SequenceClassification, Tag("sequence_classification")],
    Discriminator(kind_of),
    REWARD,
]
Evolver = Annotated[
    Annotated[LabRewriter, Tag("lab")]
    | Annotated[PolicyEvolver, Tag("policy")]
    | Annotated[ModelEvolver, Tag("model")]
    | Annotated[OpenAIEvolver, Tag("openai")],
    Discriminator(kind_of),
    EVOLVER,
]


class Creator(Section):
    """How the creator estimates, samples and evolves prompts."""

    informativeness: Literal["A_min", "A_avg", "A_dts", "var", "avg", "uniform", "inv_avg", "inv_A_min"] = "A_min"
    sampling: Literal["weighted"] = "weighted"
    fraction: float = Field(default=0.25, gt=0, le=1, description="share of the base prompts that is evolved")
    evolutions: int = Field(default=4, ge=1, description="evolutions chained on each sampled prompt; all are kept")
    max_chars: int = Field(default=8000, ge=1, description="longer evolved prompts are set aside and counted")
    evolver: Evolver


# ---------------------------------------------------------------------------- solver


class Optimiser(Section):
    """Preference optimisation of the solver. One optimiser step always sees `batch_size` pairs, whatever the world size."""

    loss: Literal["dpo"] = "dpo"
    beta: float = Field(default=0.05, gt=0)
    learning_rate: float = Field(default=5e-7, gt=0)
    epochs: int = Field(default=2, ge=1)
    batch_size: int = Field(default=64, ge=1, description="pairs per optimiser step over all ranks")
    warmup_ratio: float = Field(default=0.1, ge=0, lt=1)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    max_length: int = Field(
        default=2048, ge=2, description="tokens of prompt and response; longer pairs are set aside and counted"
    )
    max_prompt_length: int = Field(default=1024, ge=1)
    precision: Literal["fp32", "bf16"] = "bf16"
    gradient_checkpointing: bool = True

    @model_validator(mode="after")
    def _a_response_fits_beside_the_longest_prompt(self) -> Optimiser:
        if self.max_prompt_length >= self.max_length:
            raise broken_rule(
                "max_prompt_length", f"found {self.max_prompt_length}; must be below max_length, {self.max_length}"
            )
        return self


class Warmup(Section):
    """Round 0, before the creator acts: plain preference optimisation on the base prompts. Shared by all runs of a seed."""

    responses_per_prompt: int = Field(default=6, ge=2)


# ---------------------------------------------------------------------------- recipe


class Recipe(Section):
    """What is trained: policy, prompts, reward, creator, optimiser, benchmarks."""

    name: Name
    policy: Policy
    prompts: Prompts
    responses_per_prompt: int = Field(default=6, ge=2)
    evolved_ratio: float = Field(default=0.8, ge=0, le=1)
    rounds: int = Field(default=1, ge=0, description="eva rounds after the warm-up")
    warmup: Warmup | None = Warmup()
    generation: Generation = Generation()
    reward: Reward
    creator: Creator
    optimiser: Optimiser = Optimiser()
    judge: Judge | None = Field(default=None, description="of the judged benchmarks without one of their own")
    benchmarks: dict[BenchmarkName, Benchmark] = Field(min_length=1)
    quick: dict[str, Any] = Field(default_factory=dict, description="dotted keys that --quick sets, e.g. prompts.count: 64")

    @model_validator(mode="after")
    def _something_is_trained(self) -> Recipe:
        if self.warmup is None and self.rounds == 0:
            raise broken_rule(
                "rounds", "found 0 and no warmup; nothing would be trained, set rounds to 1 or more or give a warmup"
            )
        return self
